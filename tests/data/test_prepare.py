"""Preparation: what a clip holds, what a second run does, what a failure and a kill leave behind."""

import csv
import errno
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import av
import cv2
import numpy as np
import pytest

from cfnsr import __version__
from cfnsr.cli.corpus import prepare_takes
from cfnsr.corpus.scan import scan
from cfnsr.corpus.take import Take
from cfnsr.data.clip import prepare_clip
from cfnsr.data.prepare import Outcome, is_current, prepare_corpus
from cfnsr.data.store import Store, read_header
from cfnsr.emotions import CREMAD, RAVDESS
from cfnsr.errors import InputError
from cfnsr.features.base import FEATURES
from cfnsr.features.mel import PCM, Mel
from cfnsr.features.preparation import Preparation
from cfnsr.media import openface
from cfnsr.media.decode import decode
from cfnsr.media.encode import write_audio, write_video
from cfnsr.media.errors import MediaError
from cfnsr.media.openface import ACTION_UNITS, GAZE, LANDMARKS, POSE, read_means
from cfnsr.media.scan import scan_packets
from cfnsr.processes import WorkerDied

SMALL = Preparation(frames=8, size=64)


def prepare(
    corpus: Path, out: Path, preparation: Preparation = SMALL, workers: int = 0
) -> tuple[Store, Outcome]:
    found = scan(corpus)
    store = Store.create(out, found.name, found.labels, preparation.as_json())
    return store, prepare_corpus(found.takes, store, preparation, workers=workers)


@pytest.fixture(scope="module")
def stored(synthetic: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    store, outcome = prepare(synthetic, tmp_path_factory.mktemp("prepared"))
    assert len(outcome.made) == 12 and not outcome.failures
    return store


@pytest.fixture
def corpus(synthetic: Path, tmp_path: Path) -> Path:
    """A copy of the synthetic corpus."""
    return shutil.copytree(synthetic, tmp_path / "corpus")


@pytest.fixture
def out(stored: Store, tmp_path: Path) -> Path:
    """A copy of the store."""
    return shutil.copytree(stored.folder, tmp_path / "out")


def test_a_clip_describes_itself(stored: Store, synthetic: Path) -> None:
    header = stored.headers()[0]
    assert header.name == "01-01-01-01-01-01-01"
    assert (header.emotion, header.actor, header.sex) == ("neutral", 1, "male")
    assert header.attributes["intensity"] == "normal"
    assert Preparation.from_json(dict(header.preparation)) == SMALL
    assert (header.cfnsr, header.preparation["recipe"]) == (__version__, 5)
    assert header.face == {"source": "openface"}
    path = synthetic / "Actor_01" / f"{header.name}.mp4"
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert (header.sources["video"]["sha256"], header.sources["video"]["file"]) == (digest, path.name)
    tensors = stored.load(header.name, ["video", "audio", "times", "face", "level", "duration"])
    assert tensors["video"].shape == (8, 64, 64, 3) and tensors["video"].dtype == np.uint8
    assert tensors["audio"].shape == (13, 212) and tensors["audio"].dtype == np.float32
    assert tensors["face"].all() and (np.diff(tensors["times"]) > 0).all()
    assert -60 < tensors["level"][0] < -10


def test_the_sound_is_kept_beside_its_features(synthetic: Path, tmp_path: Path) -> None:
    """The waveform is that of the features, to 16 bits; the spectrogram is made on request alone."""
    take = next(take for take in scan(synthetic).takes if take.actor == 1)
    tensors = prepare_clip(take, Preparation(modalities=("audio", "log_mel"))).tensors
    waveform = tensors["waveform"] / PCM
    assert tensors["waveform"].dtype == np.int16 and len(waveform) == 108_045
    assert 10 * np.log10(np.mean(waveform**2)) == pytest.approx(float(tensors["level"][0]), abs=0.01)
    for name in ("audio", "log_mel"):
        again = cast(Mel, FEATURES[name]).compute(waveform)
        assert again.shape == tensors[name].shape
        assert np.abs(again - tensors[name]).mean() < 0.5, name  # of hundreds
    assert "log_mel" not in prepare_clip(take, Preparation(modalities=("audio",))).tensors
    assert "audio" not in prepare_clip(take, Preparation(modalities=("log_mel",))).tensors


def test_one_way_from_file_to_tensors(stored: Store, synthetic: Path) -> None:
    """What is stored is what preparing the file alone gives, and the crop is cut from the full picture."""
    take = next(take for take in scan(synthetic).takes if take.actor == 1)
    clip = prepare_clip(take, SMALL)
    kept = stored.load(take.name, list(clip.tensors))
    for name, tensor in clip.tensors.items():
        assert np.array_equal(kept[name], tensor), name
    assert take.video is not None
    frames = decode(take.video, frames=8).frames
    assert frames is not None
    x, y, side = clip.tensors["squares"][4]
    low_x, low_y = round(x - side / 4), round(y - side / 4)
    middle = frames[4, low_y : low_y + round(side / 2), low_x : low_x + round(side / 2)]
    assert np.abs(middle.mean((0, 1)) - clip.tensors["video"][4, 16:48, 16:48].mean((0, 1))).max() < 4


def test_a_second_run_does_only_what_is_missing_or_changed(corpus: Path, out: Path) -> None:
    store, again = prepare(corpus, out)
    assert (len(again.made), len(again.kept)) == (0, 12)

    takes = scan(corpus).takes
    store.path(takes[0].name).unlink()
    store.path(takes[1].name).write_bytes(b"cut short")
    changed, touched, other = (takes[place].video for place in (2, 3, 5))
    assert changed is not None and touched is not None and other is not None
    shutil.copy(other, changed)  # another recording under this name
    os.utime(touched, (1, 1))  # the same content at another time
    third = prepare(corpus, out)[1]
    assert sorted(third.made) == sorted(take.name for take in takes[:3])


def test_what_does_not_mix_in_is_refused_and_nothing_made_is_lost(synthetic: Path, out: Path) -> None:
    for changed in (replace(SMALL, margin=0.3), replace(SMALL, modalities=("audio",))):
        with pytest.raises(InputError, match=r"clips made with (margin|modalities) .*\(now .*another folder"):
            prepare(synthetic, out, changed)
    with pytest.raises(InputError, match=r"clips made with corpus ravdess \(now other\)"):
        Store.create(out, "other", RAVDESS, SMALL.as_json())
    with pytest.raises(InputError, match=r"made with labels ravdess \(.*\) \(now cremad \("):
        Store.create(out, "ravdess", CREMAD, SMALL.as_json())
    assert len(Store(out).headers()) == 12


def test_a_clip_of_another_recipe_is_made_anew(stored: Store, synthetic: Path, out: Path) -> None:
    store, old = Store(out), stored.headers()[0]
    tensors = store.load(old.name, ["audio"])
    store.write(replace(old, preparation={**old.preparation, "recipe": 0}), tensors)
    assert prepare(synthetic, out)[1].made == [old.name]


def test_a_failure_of_a_moment_loses_no_clip(
    synthetic: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unexpected error is that take's failure: the run goes on, and a clip that was good stays."""
    store = Store(out)
    for header in store.headers()[:2]:  # make them look outdated
        store.write(replace(header, attributes={}), store.load(header.name, ["audio", "video"]))

    def broken(*arguments: object, **options: object) -> None:
        raise ValueError("swscale: a codec's own\nerror")

    monkeypatch.setattr("cfnsr.data.prepare.prepare_clip", broken)
    outcome = prepare(synthetic, out)[1]
    assert [failure.reason for failure in outcome.failures] == ["broken", "broken"]
    assert "ValueError: swscale: a codec's own error" in outcome.failures[0].message
    assert len(store.headers()) == 12


def test_landmarks_of_another_video_are_refused(synthetic: Path, tmp_path: Path) -> None:
    take = scan(synthetic).takes[0]
    assert take.openface is not None
    short = tmp_path / "short.csv"
    short.write_text("\n".join(take.openface.read_text().splitlines()[:20]) + "\n")
    points = [name for name in LANDMARKS if name.startswith("x_")]
    moved = change(take.openface, tmp_path / "moved.csv", **{name: (slice(None), "2000") for name in points})
    for track in (short, moved):
        with pytest.raises(MediaError, match=r"is no track of this video \(320 x 240, \d+ pictures\)"):
            prepare_clip(replace(take, openface=track), SMALL)


@pytest.fixture
def bad(synthetic: Path, tmp_path: Path) -> Path:
    """Good takes among one of each kind of bad one."""
    folder = tmp_path / "bad" / "Actor_01"
    folder.mkdir(parents=True)
    source = synthetic / "Actor_01"
    good = sorted(source.glob("*.mp4"))
    for path in good[:2]:
        shutil.copy(path, folder)
    name = "01-01-05-01-01-01-01.mp4"
    (folder / name).write_text("this is no video, whatever its name says\n")
    (folder / name.replace("-05-", "-06-")).write_bytes(good[0].read_bytes()[:20_000])
    frames = np.random.default_rng(0).integers(0, 255, (40, 96, 96, 3), dtype=np.uint8)
    tone = np.sin(np.arange(48_000 * 2) / 20).astype(np.float32) / 4
    write_video(folder / name.replace("-05-", "-07-"), frames, 30)  # no sound
    write_video(folder / name.replace("-05-", "-08-"), frames, 30, tone, 48_000)  # no face
    write_video(folder / name.replace("-05-", "-04-"), frames[:9], 30, tone[:14_400], 48_000)  # 0.3 s
    return folder.parent


def test_every_failure_is_a_line_and_the_run_goes_on(bad: Path, tmp_path: Path, yunet: Path) -> None:
    store, outcome = prepare(bad, tmp_path / "out")
    assert len(outcome.made) == 2
    reasons = {failure.name[6:8]: failure.reason for failure in outcome.failures}
    assert reasons.pop("04") in ("too short", "no face")
    assert reasons == {"05": "not media", "06": "broken", "07": "no sound", "08": "no face"}
    report = list(csv.DictReader((store.folder / "failures.csv").open()))
    assert [(row["name"], row["reason"]) for row in report] == [
        (failure.name, failure.reason) for failure in outcome.failures
    ]
    assert all("\n" not in row["message"] and row["message"] for row in report)
    assert not list((store.folder / "clips").glob(".*")), "no half-written file is left"


def test_a_clip_of_a_recording_that_broke_is_not_kept(corpus: Path, out: Path) -> None:
    victim = scan(corpus).takes[0]
    assert victim.video is not None
    victim.video.write_text("no longer a video")
    store, outcome = prepare(corpus, out)
    assert [failure.name for failure in outcome.failures] == [victim.name]
    assert not store.path(victim.name).exists(), "it would be trained on"
    (aside,) = (out / "outdated").iterdir()
    assert read_header(aside).name == victim.name, "nothing made is lost"


def test_what_a_take_lacks_is_its_failure(synthetic: Path, tmp_path: Path) -> None:
    path = write_audio(tmp_path / "03-01-01-01-01-01-01.wav", np.zeros(14_400, np.float32), 48_000)
    with pytest.raises(MediaError, match=r"01\.wav: 0\.30 s of sound: expected at least 1 s") as error:
        prepare_clip(Take(path.stem, "neutral", 1, audio=path), Preparation(modalities=("audio",)))
    assert error.value.reason == "too short"
    take = replace(scan(synthetic).takes[0], audio=None)
    with pytest.raises(MediaError, match="no file for audio: leave audio out of --modalities") as error:
        prepare_clip(take, SMALL)
    assert error.value.reason == "no sound"


def test_modalities_prepare_only_what_is_asked(synthetic: Path, tmp_path: Path) -> None:
    take = scan(synthetic).takes[0]
    for modality in ("audio", "video", "openface"):
        clip = prepare_clip(take, replace(SMALL, modalities=(modality,)))
        assert {"audio", "video", "openface"} & set(clip.tensors) == {modality}


FACES = Preparation(modalities=("openface",))


def change(path: Path, csv_path: Path, **columns: object) -> Path:
    """A copy of an OpenFace CSV in which some columns hold one value in some rows: `name=(rows, value)`."""
    with path.open(newline="") as file:
        header, *rows = ([cell.strip() for cell in row] for row in csv.reader(file))
    for name, (where, value) in columns.items():  # type: ignore[misc]
        for row in rows[where]:
            row[header.index(name)] = value
    csv_path.write_text("\n".join(",".join(row) for row in (header, *rows)) + "\n")
    return csv_path


def test_an_openface_track_is_a_sequence_of_the_seen_faces(synthetic: Path, tmp_path: Path) -> None:
    take = scan(synthetic).takes[0]
    assert take.openface is not None
    tensors = prepare_clip(take, FACES).tensors
    assert set(tensors) == {"openface", "openface_times", "confidence"}
    rows = len(take.openface.read_text().splitlines()) - 1
    assert tensors["openface"].shape == (rows, 41) and tensors["openface"].dtype == np.float32
    assert tensors["openface_times"].shape == tensors["confidence"].shape == (rows,)
    assert tensors["openface_times"].dtype == np.float64 and tensors["confidence"].dtype == np.float32

    lost = change(
        take.openface, tmp_path / "lost.csv", success=(slice(3, 7), "0"), AU01_r=(slice(3, 7), "nan")
    )
    kept = prepare_clip(replace(take, openface=lost), FACES).tensors
    for name, tensor in tensors.items():
        assert np.array_equal(kept[name], np.delete(tensor, slice(3, 7), axis=0)), name

    nobody = change(take.openface, tmp_path / "nobody.csv", success=(slice(None), "0"))
    with pytest.raises(MediaError, match=r"nobody\.csv: OpenFace found no face in any of \d+ rows") as caught:
        prepare_clip(replace(take, openface=nobody), FACES)
    assert caught.value.reason == "no face"


def write_means(path: Path, columns: Sequence[str] = ACTION_UNITS, **rows: float) -> Path:
    """A table of clip means: the same value in all columns of a take's row."""
    lines = [("name", *columns)]
    lines += [(name.replace("_", "-"), *[str(value)] * len(columns)) for name, value in rows.items()]
    path.write_text("".join(", ".join(line) + "\n" for line in lines))
    return path


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    """Two takes as RAVDESS's sound has them, 03-…, while tables of means name 01-…."""
    noise = np.random.default_rng(0).normal(0, 0.1, 3 * 16_000).astype(np.float32)
    for emotion in ("03", "04"):
        write_audio(tmp_path / "sound" / f"03-01-{emotion}-01-01-01-07.wav", noise, 16_000)
    return tmp_path / "sound"


HAPPY, SAD = "01_01_03_01_01_01_07", "01_01_04_01_01_01_07"


def prepare_means(corpus: Path, means: Path, out: Path, preparation: Preparation) -> tuple[Store, Outcome]:
    found = scan(corpus, openface=means)
    store = Store.create(out, found.name, found.labels, preparation.as_json())
    return store, prepare_corpus(found.takes, store, preparation, workers=0)


def test_a_row_of_clip_means_is_a_sequence_of_one(
    sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The takes of a corpus share the table: it is read once, and a change makes anew whose row it is."""
    read, hashed = list[Path](), list[object]()
    monkeypatch.setattr(openface, "read_means", lambda path: (read.append(path), read_means(path))[1])
    digest = hashlib.file_digest
    monkeypatch.setattr(hashlib, "file_digest", lambda *given: (hashed.append(given), digest(*given))[1])
    means = write_means(tmp_path / "means.csv", **{HAPPY: 0.25, SAD: 0.5})
    both = Preparation(modalities=("audio", "openface"))
    store, outcome = prepare_means(sound, means, tmp_path / "out", both)
    assert len(outcome.made) == 2 and not outcome.failures
    for name, value in zip(sorted(outcome.made), (0.25, 0.5), strict=True):
        tensors = store.load(name, ["openface", "openface_times", "confidence", "audio"])
        assert tensors["openface"].tolist() == [[value] * 35]
        assert (tensors["openface_times"].tolist(), tensors["confidence"].tolist()) == ([0.0], [1.0])
    assert read == [means] and len(hashed) == 2, "the table once, and each sound"
    row = np.full(35, 0.25, np.float32).tobytes()
    assert store.headers()[0].sources["openface"]["sha256"] == hashlib.sha256(row).hexdigest()

    os.utime(means, (1, 1))
    assert len(prepare_means(sound, means, tmp_path / "out", both)[1].kept) == 2
    write_means(means, **{"01_01_05_01_01_01_07": 1.0, HAPPY: 0.75, SAD: 0.5})
    store, outcome = prepare_means(sound, means, tmp_path / "out", both)
    assert len(outcome.made) == len(outcome.kept) == 1, "a row more, and another one changed"
    assert store.load(outcome.made[0], ["openface"])["openface"][0, 0] == 0.75


def test_what_a_table_of_means_lacks_fails_alone_and_a_broken_one_ends_the_run(
    sound: Path, tmp_path: Path
) -> None:
    means = write_means(tmp_path / "means.csv", **{HAPPY: 0.25})
    take = replace(scan(sound).takes[1], openface=means)
    with pytest.raises(MediaError, match=r"means\.csv has no row for 03-01-04-01-01-01-07") as caught:
        prepare_clip(take, FACES)
    assert caught.value.reason == "missing"
    write_means(means, **{HAPPY: 0.25, SAD: float("nan")})
    with pytest.raises(InputError, match="expected a finite number") as error:
        prepare_means(sound, means, tmp_path / "out", FACES)
    assert not isinstance(error.value, MediaError), "all would fail alike"


def test_means_tell_nothing_of_where_the_face_is(
    shared: Path, yunet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Videos with a table of means, even of landmarks, are cut by the detector."""
    corpus = shared / "clips/ravdess/Actor_01"
    columns = (*ACTION_UNITS, *POSE, *GAZE, *LANDMARKS)
    means = write_means(tmp_path / "means.csv", columns, **{"01_01_01_01_01_01_01": 1.0})
    every = replace(SMALL, modalities=("video", "openface"))
    store, outcome = prepare_means(corpus, means, tmp_path / "a", every)
    (header,) = store.headers()
    assert outcome.made == [header.name]
    assert header.face == {"source": "detector"}
    assert set(header.sources) == {"video", "openface"}
    assert store.load(header.name, ["openface"])["openface"].shape == (1, 185)

    pictures = replace(SMALL, modalities=("video",))
    store, _ = prepare_means(corpus, means, tmp_path / "b", pictures)
    assert set(store.headers()[0].sources) == {"video"}, "a new table changes no picture"
    monkeypatch.setenv("CFNSR_YUNET", str(tmp_path / "none"))
    with pytest.raises(InputError, match="CFNSR_YUNET names"):
        prepare_means(corpus, means, tmp_path / "c", every)


def test_consecutive_frames(synthetic: Path) -> None:
    take = scan(synthetic).takes[0]
    times = prepare_clip(take, replace(SMALL, sampling="consecutive")).tensors["times"]
    assert np.allclose(np.diff(times), 1 / 30, atol=1e-3)


def test_workers_give_the_same_clips(stored: Store, synthetic: Path, tmp_path: Path) -> None:
    found = scan(synthetic)
    store = Store.create(tmp_path, found.name, found.labels, SMALL.as_json())
    outcome = prepare_corpus(found.takes[:3], store, SMALL, workers=2)
    assert len(outcome.made) == 3
    for name in outcome.made:
        assert store.path(name).read_bytes() == stored.path(name).read_bytes()


KILLED = """
import os, signal, sys
from pathlib import Path
from cfnsr import __version__
from cfnsr.cli.corpus import prepare_takes
from cfnsr.corpus.scan import scan
from cfnsr.features.preparation import Preparation
from cfnsr.data.prepare import prepare_corpus
from cfnsr.data.store import Store
if __name__ == "__main__":
    found = scan(Path(sys.argv[1]))
    settings = Preparation(frames=8, size=64)
    store = Store.create(Path(sys.argv[2]), found.name, found.labels, settings.as_json())
    done = 0
    def progress(take, state):
        global done
        done += 1
        if done == 4:
            print("four", flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
    prepare_corpus(found.takes, store, settings, workers=2, progress=progress)
"""


@pytest.mark.long
def test_killed_preparation_goes_on_and_equals_an_undisturbed_one(
    stored: Store, synthetic: Path, tmp_path: Path
) -> None:
    script = tmp_path / "killed.py"
    script.write_text(KILLED)
    command = [sys.executable, script, synthetic, tmp_path / "out"]
    killed = subprocess.run(command, check=False, capture_output=True, timeout=120)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert len(Store(tmp_path / "out").headers()) >= 4
    store, outcome = prepare(synthetic, tmp_path / "out", workers=0)
    assert len(outcome.kept) >= 4 and len(outcome.made) + len(outcome.kept) == 12
    for header in stored.headers():
        assert store.path(header.name).read_bytes() == stored.path(header.name).read_bytes()


def test_a_full_disk_stops_with_one_line_and_keeps_what_is_made(
    synthetic: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Path.write_bytes
    written = 0

    def full(self: Path, data: bytes) -> int:
        nonlocal written
        written += 1
        if written > 3:
            self.touch()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self))
        return write(self, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(InputError, match=r"the disk of .* is full: .* what is prepared stays"):
        prepare(synthetic, tmp_path)
    store = Store(tmp_path)
    assert len(store.headers()) == 3
    assert not list((tmp_path / "clips").glob(".*"))


def test_a_worker_that_dies_costs_its_take_alone(
    synthetic: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = scan(synthetic)
    victim = found.takes[1].name

    def one_dies(function: Any, takes: list[Take], workers: int, failed: Any) -> Iterator[tuple[Take, Any]]:
        return (
            (take, failed(take, WorkerDied(-11)) if take.name == victim else function(take)) for take in takes
        )

    monkeypatch.setattr("cfnsr.data.prepare.map_surviving", one_dies)
    store = Store.create(tmp_path, found.name, found.labels, SMALL.as_json())
    outcome = prepare_corpus(found.takes[:3], store, SMALL, workers=0)
    assert [(failure.name, failure.reason) for failure in outcome.failures] == [(victim, "crash")]
    assert len(outcome.made) == 2


def test_without_the_detector_takes_with_landmarks_are_prepared(
    corpus: Path, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CFNSR_YUNET", str(tmp_path / "nowhere.onnx"))
    landmarks = sorted((corpus / "landmarks").glob("*.csv"))
    landmarks[0].unlink()
    for name in (landmarks[0].stem, landmarks[1].stem):
        Store(out).path(name).unlink()
    outcome = prepare(corpus, out)[1]
    assert outcome.made == [landmarks[1].stem]
    (failure,) = outcome.failures
    assert (failure.name, failure.reason) == (landmarks[0].stem, "missing")
    assert "CFNSR_YUNET" in failure.message
    shutil.rmtree(corpus / "landmarks")
    with pytest.raises(InputError, match="CFNSR_YUNET names"):
        prepare(corpus, tmp_path / "other")


def test_names_lead_nowhere_else(tmp_path: Path) -> None:
    store = Store.create(tmp_path / "store", "evil", RAVDESS, SMALL.as_json())
    for name in ("../../evil", "/etc/passwd", "a/b", "..", "é ü"):
        path = store.path(name)
        assert path.parent == store.folder / "clips" and path.resolve().parent == path.parent.resolve()


def test_damaged_clips_and_stores(stored: Store, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"corpus.json is missing: expected a folder made by `cfnsr pr"):
        Store(tmp_path)
    store = Store.create(tmp_path, "x", RAVDESS, SMALL.as_json())
    with pytest.raises(InputError, match="holds no prepared clip"):
        store.headers()
    whole = stored.path(stored.headers()[0].name)
    (tmp_path / "clips").mkdir()
    for content in (b"", b"x" * 100, whole.read_bytes()[:1000]):
        (tmp_path / "clips" / "a.safetensors").write_bytes(content)
        with pytest.raises(InputError, match="is no prepared clip"):
            read_header(tmp_path / "clips" / "a.safetensors")
    described = json.loads((tmp_path / "corpus.json").read_text())
    for labels in ([], "calm", {"name": "x", "emotions": ["a", "b"], "merged": ["a"]}):
        (tmp_path / "corpus.json").write_text(json.dumps({**described, "labels": labels}))
        with pytest.raises(InputError, match=r"corpus\.json is damaged"):
            Store(tmp_path)


@pytest.mark.parametrize(
    "changes",
    [{"frames": 0}, {"size": 5}, {"sampling": "odd"}, {"modalities": ()}, {"modalities": ("smell",)}],
)
def test_impossible_settings(changes: dict[str, object]) -> None:
    with pytest.raises(InputError, match="expected"):
        Preparation(**changes)  # type: ignore[arg-type]


def test_takes_of_several_streams(two_tracks: Callable[..., Path], tmp_path: Path) -> None:
    """One is taken by the rule or by its number; the clip tells of it, and another one makes it anew."""
    voice = np.random.default_rng(0).uniform(-0.3, 0.3, 16_000 * 3)
    path = two_tracks(tmp_path / "talk.mka", 0.1 * voice, voice, 16_000)
    take = Take("talk", "calm", 1, audio=path)
    clips = {}
    for number in (None, 1, 2):
        settings = Preparation(modalities=("audio",), audio_stream=number)
        assert Preparation.from_json(settings.as_json()) == settings
        clips[number] = prepare_clip(take, settings)
        for each in (None, 1, 2):
            other = replace(settings, audio_stream=each)
            assert is_current(clips[number].header, take, other) == (each == number)
    usual, first, second = clips.values()
    np.testing.assert_array_equal(usual.tensors["waveform"], second.tensors["waveform"])
    assert first.tensors["level"] == pytest.approx(second.tensors["level"] - 20, abs=0.1)
    assert usual.header.sources["audio"]["notes"] == ["sound stream 2 of 2 is taken, marked default"]
    with pytest.raises(MediaError, match="no stream 3 of sound"):
        prepare_clip(take, Preparation(modalities=("audio",), audio_stream=3))


def test_what_is_said_of_takes_of_several_streams(
    two_tracks: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    voice = np.random.default_rng(0).uniform(-0.3, 0.3, 16_000 * 3)
    for name in ("one", "two"):
        two_tracks(tmp_path / f"{name}.mka", 0 * voice, voice, 16_000)
    table = tmp_path / "takes.csv"
    table.write_text("path,label,speaker\none.mka,calm,one\ntwo.mka,sad,two\n")
    settings = Preparation(modalities=("audio",), audio_stream=2)
    assert prepare_takes(scan(table), table, tmp_path / "out", settings, workers=0) == 0
    said = capsys.readouterr().err
    assert said.count("2 takes, such as one: sound stream 2 of 2 is taken, as asked for") == 1


def test_points_of_a_film_of_wide_pixels(
    synthetic: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenFace tells its points in coded pixels: the face is cut out of the picture as shown."""
    take = next(take for take in scan(synthetic).takes if take.video)
    assert take.video is not None and take.openface is not None
    count = scan_packets(take.video).frame_count
    found = decode(take.video, frames=count, audio=False).frames
    assert found is not None
    path = tmp_path / "wide.mkv"
    with av.open(str(path), "w") as file:
        stream: Any = file.add_stream("mjpeg", rate=30)
        stream.width, stream.height = found.shape[2] // 2, found.shape[1]
        stream.pix_fmt, stream.sample_aspect_ratio = "yuvj420p", Fraction(2)
        for at, picture in enumerate(found):
            narrow = cv2.resize(picture, (stream.width, stream.height), interpolation=cv2.INTER_AREA)
            frame = av.VideoFrame.from_ndarray(narrow, "rgb24").reformat(format="yuvj420p")
            frame.pts, frame.time_base = at, Fraction(1, 30)
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    settings = Preparation(modalities=("video",), frames=8, size=64)
    square = prepare_clip(take, settings)
    track = openface.read_openface(take.openface)
    assert track.landmarks is not None
    narrow_track = replace(track, landmarks=track.landmarks * np.array([0.5, 1], np.float32))
    monkeypatch.setattr("cfnsr.data.windows.read_track", lambda *_, **how: narrow_track)
    wide = prepare_clip(replace(take, video=path), settings)
    np.testing.assert_allclose(wide.tensors["squares"], square.tensors["squares"], atol=0.5)
    difference = wide.tensors["video"].astype(int) - square.tensors["video"]
    assert np.abs(difference).mean() < 8


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")])
def test_a_take_without_an_end_is_refused_before_it_is_opened(
    tmp_path: Path, make: Callable[[Path], object]
) -> None:
    make(tmp_path / "take.wav")
    with pytest.raises(MediaError, match="is not a file"):
        prepare_clip(Take("take", "calm", 1, audio=tmp_path / "take.wav"), Preparation(modalities=("audio",)))
