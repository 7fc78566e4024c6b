"""The store: an index that is never trusted over the clips, folders for many, a lock, and object storage."""

import csv
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cfnsr.corpus.take import Take
from cfnsr.data import index as indexes
from cfnsr.data import ranged
from cfnsr.data import store as stores
from cfnsr.data.index import Listed
from cfnsr.data.prepare import Failure, Outcome, prepare_corpus
from cfnsr.data.store import MANY, Header, Store
from cfnsr.emotions import RAVDESS
from cfnsr.errors import InputError
from cfnsr.features.preparation import Preparation
from cfnsr.files import locked, place
from cfnsr.media.encode import write_audio
from cfnsr.media.errors import MediaError

SOUND = Preparation(modalities=("audio",))
CLIPS = 8


@pytest.fixture
def takes(tmp_path: Path) -> list[Take]:
    """Takes with a second of noise each."""
    noise = np.random.default_rng(0).normal(0, 0.1, (CLIPS, 3 * 16_000)).astype(np.float32)
    paths = [write_audio(tmp_path / f"take {place}.wav", sound, 16_000) for place, sound in enumerate(noise)]
    return [
        Take(path.stem, RAVDESS.emotions[place], place % 3, audio=path) for place, path in enumerate(paths)
    ]


def prepare(takes: list[Take], folder: Path, number: int = CLIPS) -> tuple[Store, Outcome]:
    store = Store.create(folder, "noise", RAVDESS, SOUND.as_json(), number)
    return store, prepare_corpus(takes, store, SOUND, workers=0)


@pytest.fixture
def store(takes: list[Take], tmp_path: Path) -> Store:
    return prepare(takes, tmp_path / "out")[0]


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Clip files whose headers were read, as they are."""
    paths, read = list[Path](), stores.read_header
    monkeypatch.setattr(stores, "read_header", lambda path: (paths.append(path), read(path))[1])
    return paths


def unindexed(store: Store) -> list[Header]:
    """Headers as the clips themselves have them."""
    read = [stores.read_header(path) for path in (store.folder / "clips").rglob("*.safetensors")]
    return sorted(read, key=lambda header: header.name)


def test_headers_come_from_the_index_as_the_clips_have_them(store: Store, reads: list[Path]) -> None:
    headers, entries = store.headers(), store.entries()
    assert not reads, "no clip was opened"
    assert headers == unindexed(store) and len(headers) == CLIPS
    assert json.dumps([vars(header) for header in headers]) == json.dumps(list(map(vars, unindexed(store))))
    assert entries == [Listed(header.name, header.emotion, header.actor) for header in headers]


def test_preparing_again_opens_no_clip(takes: list[Take], store: Store, reads: list[Path]) -> None:
    before = (store.folder / "index.sqlite").stat()
    assert len(prepare(takes, store.folder)[1].kept) == CLIPS and not reads
    assert (store.folder / "index.sqlite").stat() == before, "what says nothing new is not written"


def test_a_clip_that_changed_is_read_itself(store: Store, reads: list[Path]) -> None:
    first, second, third = store.headers()[:3]
    store.path(first.name).unlink()
    changed = replace(second, emotion="calm", actor="somebody")
    store.write(changed, store.load(second.name))
    new = replace(third, name="another")
    store.write(new, store.load(third.name))
    kept = Store(store.folder).headers()
    assert kept == unindexed(store) and len(kept) == CLIPS
    assert changed in kept and new in kept and first not in kept
    assert set(reads[:2]) == {store.path(second.name), store.path("another")}
    assert [entry.name for entry in store.entries()] == [header.name for header in kept]


def test_a_clip_overwritten_in_place_is_noticed(takes: list[Take], store: Store) -> None:
    """Not by the quick listing, which says so, but by whoever trains on it or prepares it again."""
    first, second = store.headers()[:2]
    content = store.path(second.name).read_bytes()
    with store.path(first.name).open("r+b") as file:  # the folder's time stays
        file.truncate()
        file.write(content)
    assert sorted(header.name for header in store.headers())[:2] == [second.name, second.name]
    with store.path(second.name).open("r+b") as file:
        file.truncate(100)
    with pytest.raises(InputError, match="is no prepared clip"):
        store.headers()
    outcome = prepare(takes, store.folder)[1]
    assert sorted(outcome.made) == [first.name, second.name]


def spoil(index: Path, how: str) -> None:
    if how == "lost":
        index.unlink()
    elif how == "cut":
        os.truncate(index, index.stat().st_size - 2 * 4096)
    elif how == "short":
        os.truncate(index, 100)
    elif how == "empty":
        os.truncate(index, 0)
    elif how == "noise":
        index.write_bytes(bytes(range(256)) * 40)
    else:
        with sqlite3.connect(index) as connection:
            connection.executescript(how)
        connection.close()


@pytest.mark.parametrize(
    "how",
    [
        "lost",
        "cut",
        "short",
        "empty",
        "noise",
        "PRAGMA user_version = 99",
        "UPDATE clips SET rest = 'no json' WHERE name = 'take 3'",
        "UPDATE preparations SET json = '{'",
        "DROP TABLE clips",
    ],
)
def test_a_damaged_index_is_as_none_and_made_anew(
    takes: list[Take], store: Store, reads: list[Path], how: str
) -> None:
    index, headers, entries = store.folder / "index.sqlite", store.headers(), store.entries()
    spoil(index, how)
    assert Store(store.folder).headers() == headers and Store(store.folder).entries() == entries
    assert len(prepare(takes, store.folder)[1].kept) == CLIPS
    reads.clear()
    assert Store(store.folder).headers() == headers and not reads


def test_an_index_with_any_bytes_flipped_is_as_none(takes: list[Take], store: Store) -> None:
    """Also with its checksum made anew, as if a header were of another version: no exception ever escapes."""
    path, headers, entries = store.folder / "index.sqlite", store.headers(), store.entries()
    good, random = path.read_bytes(), np.random.default_rng(0)
    used = np.flatnonzero(np.frombuffer(good, np.uint8))  # most of so small an index is empty
    for number in range(300):
        spoiled = bytearray(good)
        for byte in random.choice(used, random.integers(1, 9)):
            spoiled[byte] ^= random.integers(1, 256)
        path.write_bytes(spoiled)
        Store(store.folder).entries()  # takes it at its word
        assert Store(store.folder).headers() == headers, number
        if number % 3 == 0:
            spoiled[68:72] = indexes._checksum(path)
            path.write_bytes(spoiled)
            Store(store.folder).headers()
            path.write_bytes(spoiled[:68] + good[68:72] + spoiled[72:])
        if number % 10 == 0:
            assert len(prepare(takes, store.folder)[1].kept) == CLIPS
            assert Store(store.folder).entries() == entries
            with store.index(whole=True) as index:
                assert len(index.headers(store.stamps())) == CLIPS


def test_an_index_that_fails_while_it_is_written_is_one_line_and_no_lasting_harm(
    takes: list[Take], store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.path(takes[0].name).unlink()

    def malformed(*row: object) -> None:
        raise sqlite3.DatabaseError("database disk image is malformed")

    with monkeypatch.context() as patch:
        patch.setattr(indexes, "_insert", malformed)
        with pytest.raises(OSError, match=r"malformed.*index\.sqlite"):
            prepare(takes, store.folder)
    assert len(prepare(takes, store.folder)[1].kept) == CLIPS and len(store.headers()) == CLIPS


def test_a_clip_of_others_and_a_damaged_one_are_known_too(
    takes: list[Take], store: Store, reads: list[Path]
) -> None:
    (store.folder / "index.sqlite").unlink()
    store.path(takes[0].name).write_bytes(b"cut short")
    assert prepare(takes[:2], store.folder)[1].made == [takes[0].name]
    reads.clear()
    assert len(store.headers()) == CLIPS and not reads


def test_a_name_that_is_no_text_is_prepared_once(takes: list[Take], store: Store) -> None:
    odd = replace(takes[0], name=os.fsdecode(b"caf\xe9"))
    assert prepare([odd], store.folder)[1].made == [odd.name]
    assert prepare([odd], store.folder)[1].kept == [odd.name]
    assert len(store.entries()) == len(store.headers()) == CLIPS + 1


def test_few_clips_lie_flat_and_many_in_folders(takes: list[Take], tmp_path: Path) -> None:
    flat, _ = prepare(takes, tmp_path / "flat", MANY)
    many, _ = prepare(takes, tmp_path / "many", MANY + 1)
    assert json.loads((flat.folder / "corpus.json").read_text())["format"] == 1
    assert all(path.parent.name == "clips" for path in flat.folder.rglob("*.safetensors"))
    paths = sorted((many.folder / "clips").glob("??/*.safetensors"))
    assert len(paths) == CLIPS and len({path.parent for path in paths}) > 1
    assert Store(many.folder).headers() == flat.headers() and Store(many.folder).entries() == flat.entries()
    for take in takes:
        assert many.path(take.name).read_bytes() == flat.path(take.name).read_bytes()
    for folder, number in ((flat.folder, MANY + 1), (many.folder, 1)):  # as it was begun
        store, again = prepare(takes, folder, number)
        assert len(again.kept) == CLIPS and store.sharded == (folder == many.folder)
    many.path(takes[0].name).unlink()
    assert len(many.entries()) == CLIPS - 1


def test_the_index_is_written_as_it_grows(
    takes: list[Take], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A killed preparation leaves an index of most of its clips, in which nothing is wrong."""
    monkeypatch.setattr(indexes, "LEAST", 3)
    store = Store.create(tmp_path / "out", "noise", RAVDESS, SOUND.as_json())
    made = 0

    def stop(take: Take, state: str) -> None:
        nonlocal made
        made += 1
        if made == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare_corpus(takes, store, SOUND, workers=0, progress=stop)
    with store.index() as index:
        assert len(index.headers(store.stamps())) == 6
    assert len(store.headers()) == len(store.entries()) == 7


def test_failures_are_added_as_they_come_and_begin_anew(
    takes: list[Take], store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = store.folder / "failures.csv"
    report.write_text("name,file,reason,message\ncut sh")

    def broken(take: Take, *rest: object, **options: object) -> None:
        raise MediaError("broken", f"{take.name} is\N{LEFT-TO-RIGHT OVERRIDE}, \udce9 broken")

    monkeypatch.setattr("cfnsr.data.prepare.prepare_clip", broken)
    sizes = []

    def look(take: Take, state: str) -> None:
        lines = list(csv.DictReader(report.open(encoding="utf-8")))
        assert state == "failed" and lines[-1]["name"] == take.name
        sizes.append(len(lines))

    for take in takes:
        store.path(take.name).unlink()
    outcome = prepare_corpus(takes, store, SOUND, workers=0, progress=look)
    assert sizes == list(range(1, CLIPS + 1))
    assert isinstance(outcome.failures[0], Failure) and "cut sh" not in report.read_text()


HOLD = """
import sys
from pathlib import Path
from typing import Any
from cfnsr.files import locked
with locked(Path(sys.argv[1])):
    print("locked", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def held() -> Iterator[Callable[[Path], subprocess.Popen[str]]]:
    """`held(folder)` has another process write a folder."""
    processes = []

    def hold(folder: Path) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", HOLD, folder]
        process = subprocess.Popen(command, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        processes.append(process)
        assert process.stdout is not None and process.stdout.readline() == "locked\n"
        return process

    yield hold
    for process in processes:
        process.communicate()


def test_a_folder_is_written_by_one(tmp_path: Path, held: Callable[[Path], subprocess.Popen[str]]) -> None:
    process = held(tmp_path / "out")
    refused = pytest.raises(InputError, match=r"out is being written by another cfnsr: .*wait until that has")
    with refused, locked(tmp_path / "out"):
        pass
    with locked(tmp_path / "other"):
        pass
    process.send_signal(signal.SIGKILL)
    process.wait()
    with locked(tmp_path / "out"):  # a kill frees it
        pass


def test_the_second_of_two_verbs_on_one_folder_stops(
    cfnsr: Callable[..., subprocess.CompletedProcess[str]],
    held: Callable[[Path], subprocess.Popen[str]],
    synthetic: Path,
    prepared: Path,
    tmp_path: Path,
) -> None:
    held(tmp_path)
    for command in (
        ("prepare", synthetic, tmp_path, "--modalities", "audio"),
        ("crossval", "audio", "--data", prepared, "--out", tmp_path, "--preset", "small", "--folds", 1),
        ("synthesize", tmp_path, "--actors", 1),
    ):
        done = cfnsr(*command)
        assert done.returncode == 2 and "is being written by another cfnsr" in done.stderr, command
        assert len(done.stderr.splitlines()) <= 2, done.stderr  # a note on the corpus, and the refusal
        assert [path.name for path in tmp_path.iterdir()] == [".lock"]


@pytest.fixture(params=["memory", "file", "s3"])
def remote(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A folder as object storage has it: fsspec's memory, its local files, and a server of S3."""
    pytest.importorskip("upath")
    if request.param == "memory":
        yield place(f"memory://{tmp_path.name}/store")
    elif request.param == "file":
        for folder in ("clips", "outdated"):  # which object storage does not need
            (tmp_path / "far" / folder).mkdir(parents=True)
        yield place(f"file://{tmp_path}/far")
    else:
        yield place(f"s3://{request.getfixturevalue('bucket')}/store")


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    """A bucket of a server of our own: `pip install s3fs`, and moto_server of `moto[server]` on the PATH."""
    s3fs = pytest.importorskip("s3fs")
    program = shutil.which("moto_server")
    if program is None:
        pytest.skip("no moto_server on the PATH")
    command = [program, "-H", "127.0.0.1", "-p", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        address = next(line.split()[-1] for line in server.stderr if "Running on" in line)
        settings = {"ACCESS_KEY_ID": "any", "SECRET_ACCESS_KEY": "any", "DEFAULT_REGION": "us-east-1"}
        for name, value in {"ENDPOINT_URL": address, **settings}.items():
            monkeypatch.setenv(f"AWS_{name}", value)
        s3fs.S3FileSystem.clear_instance_cache()
        s3fs.S3FileSystem().mkdir("clips-of-mine")
        yield "clips-of-mine"
        server.terminate()


def test_a_store_on_object_storage_is_that_of_a_disk(
    takes: list[Take], store: Store, remote: Path, reads: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    far, outcome = prepare(takes, remote)
    assert len(outcome.made) == CLIPS and len(prepare(takes, remote)[1].kept) == CLIPS
    assert Store(remote).headers() == store.headers() and not reads
    assert far.entries() == store.entries()
    for take in takes:
        assert far.path(take.name).read_bytes() == store.path(take.name).read_bytes()
        ours, theirs = far.load(take.name), store.load(take.name)
        assert ours.keys() == theirs.keys()
        assert all(np.array_equal(ours[name], theirs[name]) for name in ours)
        assert all(np.array_equal(ours[name], far.find(take.name, name)) for name in ours)  # type: ignore[arg-type]
        assert far.find(take.name, "video") is None
    with pytest.raises(InputError, match="has no video: prepare the corpus with what"):
        far.load(takes[0].name, ["video"])

    (remote / "index.sqlite").unlink()
    far.path(takes[0].name).write_bytes(b"cut short")
    with pytest.raises(InputError, match="is no prepared clip"):
        far.headers()
    far.path(takes[1].name).unlink()
    takes[2].audio.write_text("no longer sound")  # type: ignore[union-attr]
    outcome = prepare(takes, remote)[1]
    assert outcome.made == [takes[0].name, takes[1].name]
    assert [failure.name for failure in outcome.failures] == [takes[2].name]
    assert takes[2].name in (remote / "failures.csv").read_text()
    assert len(far.headers()) == CLIPS - 1 and (remote / "outdated").exists()


def test_of_a_remote_clip_only_what_is_asked_for_is_read(
    takes: list[Take], store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("upath")
    far = Store(place(f"file://{store.folder}"))
    asked, read = [], ranged.RangedClip._read
    monkeypatch.setattr(
        ranged.RangedClip, "_read", lambda clip, *span: (asked.append(span), read(clip, *span))[1]
    )
    name = takes[0].name
    header = store.path(name).read_bytes()
    length = 8 + int.from_bytes(header[:8], "little")
    assert far.header(name) == store.header(name)
    assert asked == [(0, 8), (8, length)]
    asked.clear()
    level = far.load(name, ["level"])["level"]
    assert np.array_equal(level, store.load(name, ["level"])["level"])
    assert sum(end - start for start, end in asked) == length + level.nbytes


def test_prepare_and_train_on_object_storage(
    cfnsr: Callable[..., subprocess.CompletedProcess[str]],
    synthetic: Path,
    tmp_path: Path,
    quick: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("upath")

    def here(function: Any, items: Any, **options: Any) -> Any:  # each process has its own memory
        return ((item, function(item)) for item in items)

    monkeypatch.setattr("cfnsr.data.prepare.map_surviving", here)
    far, near = f"memory://{tmp_path.name}", tmp_path / "near"
    for out in (far, near):
        done = cfnsr("prepare", synthetic, out, "--size", 64, "--frames", 8, "--workers", 1)
        assert done.returncode == 0 and f"12 clips made, 0 kept, 0 failed in {out}" in done.stdout, (
            done.stderr
        )
        tiny = ("--preset", "small", "--epochs", 1, "--folds", 1)
        done = cfnsr("crossval", "audio", "--data", out, "--out", tmp_path / f"runs-{out == far}", *tiny)
        assert done.returncode == 0, done.stderr
    weights = [
        next((tmp_path / f"runs-{where}").rglob("model.safetensors")).read_bytes() for where in (True, False)
    ]
    assert weights[0] == weights[1]
    assert (place(far) / "contact_sheet.png").read_bytes() == (near / "contact_sheet.png").read_bytes()


def test_a_place_that_cannot_be_used_is_one_line(
    cfnsr: Callable[..., subprocess.CompletedProcess[str]],
    synthetic: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("upath")
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    for name, said in (
        ("gs://bucket/folder", "gs://bucket/folder cannot be opened: Please install gcsfs"),
        ("nowhere://bucket/folder", "nowhere://bucket/folder cannot be reached (ValueError"),
        ("memory://nothing", "memory://nothing/corpus.json is missing"),
    ):
        done = cfnsr("crossval", "audio", "--data", name, "--out", "runs")
        assert done.returncode == 2 and said in done.stderr, done.stderr
        assert len(done.stderr.splitlines()) == 1
    assert not Path("runs").exists()
