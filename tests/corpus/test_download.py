"""Downloads from a local server that speaks Zenodo's API, cuts the line, and lies."""

import hashlib
import io
import json
import random
import shutil
import stat
import threading
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import requests

from cfnsr.corpus import scan
from cfnsr.corpus import zenodo as zenodo_module
from cfnsr.corpus.download import MARKER, WORKPLACE, Plan, plan_download
from cfnsr.corpus.zenodo import ATTEMPTS
from cfnsr.errors import InputError

VIDEO, LANDMARKS = 1188976, 3255102
ARCHIVE = "Video_Speech_Actor_01.zip"
CLIP = "Actor_01/01-01-05-01-01-01-01.mp4"


@dataclass
class Server:
    """What the local Zenodo holds, how it misbehaves, and what it was asked."""

    url: str = ""
    records: dict[int, dict[str, bytes]] = field(default_factory=dict)
    entries: bool = False  # the files of a record are a dictionary, as InvenioRDM writes them
    answers: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    claims: dict[str, dict[str, Any]] = field(default_factory=dict)
    cuts: list[int] = field(default_factory=list)
    ranges: str = "kept"
    extra: bytes = b""
    chunked: bool = False
    asked: list[tuple[str, str | None]] = field(default_factory=list)

    def fetched(self) -> list[tuple[str, str | None]]:
        """The files asked for, with the ranges."""
        return [(path.split("/")[-2], range_) for path, range_ in self.asked if path.endswith("/content")]

    def describe(self, record: int) -> bytes:
        files = []
        for name, content in self.records[record].items():
            md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
            described = {"key": name, "size": len(content), "checksum": f"md5:{md5}"}
            files.append(described | self.claims.get(name, {}))
        listed = {"entries": {file["key"]: file for file in files}} if self.entries else files
        return json.dumps({"id": record, "files": listed}).encode()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    zenodo: Server

    def log_message(self, *arguments: object) -> None:
        pass

    def do_GET(self) -> None:
        zenodo = self.zenodo
        zenodo.asked.append((self.path, self.headers.get("Range")))
        parts = self.path.strip("/").split("/")
        try:
            if self.path in zenodo.answers:
                self.answer(*zenodo.answers[self.path])
            elif parts[-1] == "content":
                self.send_file(zenodo.records[int(parts[2])][parts[4]])
            else:
                self.answer(200, zenodo.describe(int(parts[2])))
        except (BrokenPipeError, ConnectionResetError):  # the client hung up on a lie
            self.close_connection = True

    def send_file(self, content: bytes) -> None:
        zenodo = self.zenodo
        asked, start, headers = self.headers.get("Range"), 0, {}
        if asked and zenodo.ranges == "refused":
            self.answer(416, b"")
            return
        if asked and zenodo.ranges != "ignored":
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
            shown = start + 7 if zenodo.ranges == "wrong" else start
            headers["Content-Range"] = f"bytes {shown}-{len(content) - 1}/{len(content)}"
        body = content[start:] + zenodo.extra
        self.send_response(206 if headers else 200)
        for name, value in headers.items():
            self.send_header(name, value)
        if zenodo.chunked:
            self.send_header("Transfer-Encoding", "chunked")
            body = f"{len(body):x}\r\n".encode() + body + b"\r\n0\r\n\r\n"
        else:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if zenodo.cuts:
            body = body[: zenodo.cuts.pop(0)]
            self.close_connection = True
        self.wfile.write(body)

    def answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Retry-After", "3")
        self.end_headers()
        self.wfile.write(body)


def zipped(files: Mapping[str, bytes], *members: zipfile.ZipInfo) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
        for member in members:
            archive.writestr(member, b"evil")
    return sink.getvalue()


def noise(seed: int, size: int = 2000) -> bytes:
    return random.Random(seed).randbytes(size)


def videos(actor: int, size: int = 2000) -> dict[str, bytes]:
    folder = f"Actor_{actor:02d}"
    return {
        f"{folder}/01-01-05-01-01-01-{actor:02d}.mp4": noise(actor, size),
        f"{folder}/02-01-05-01-01-01-{actor:02d}.mp4": noise(-actor, size),
        f"__MACOSX/{folder}/._01-01-05-01-01-01-{actor:02d}.mp4": b"resource fork",
        f"{folder}/.DS_Store": b"",
    }


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Nothing waits; what was to be waited is kept here."""
    seconds: list[float] = []
    monkeypatch.setattr("time.sleep", seconds.append)
    return seconds


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    zenodo = Server()
    http = ThreadingHTTPServer(("127.0.0.1", 0), type("Zenodo", (Handler,), {"zenodo": zenodo}))
    zenodo.url = f"http://127.0.0.1:{http.server_port}"
    sound = {f"Actor_{actor:02d}/03-01-05-01-01-01-{actor:02d}.wav": b"RIFF" for actor in range(1, 25)}
    tracks = {f"01-01-05-01-01-01-{actor:02d}.csv": b"frame, face_id\n" for actor in range(1, 25)}
    zenodo.records = {
        VIDEO: {
            **{f"Video_Speech_Actor_{actor:02d}.zip": zipped(videos(actor)) for actor in range(1, 25)},
            "Video_Song_Actor_01.zip": b"not this one",
            "Audio_Speech_Actors_01-24.zip": zipped(sound),
        },
        LANDMARKS: {
            "TrackingOverlay_Actor_01.zip": b"nor this one",
            "FacialTracking_Actors_01-24.zip": zipped(tracks),
        },
    }
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield zenodo
    http.shutdown()
    thread.join()
    http.server_close()


def plan(folder: Path, server: Server, **options: Any) -> Plan:
    defaults: dict[str, Any] = {"actors": [1], "what": ("video",)}
    return plan_download(folder, base_url=server.url, **(defaults | options))


def error_of(action: Callable[[], object]) -> str:
    with pytest.raises(InputError) as caught:
        action()
    message = str(caught.value)
    assert "\n" not in message
    return message


def visible(folder: Path) -> set[str]:
    paths = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return {str(path) for path in paths if not any(part.startswith(".") for part in path.parts)}


def whole(folder: Path, size: int = 2000) -> bool:
    """True if all of actor 1's videos are there as they were in the archive, and nothing else."""
    expected = {name: content for name, content in videos(1, size).items() if name.startswith("Actor_01/0")}
    return {name: (folder / name).read_bytes() for name in visible(folder)} == expected


def test_everything_arrives_where_scan_finds_it(tmp_path: Path, server: Server) -> None:
    seen: list[tuple[str, int, int]] = []
    every = plan(tmp_path / "new/folder", server, actors=None, what=("video", "audio", "landmarks"))
    summary = every.summary()
    assert not server.fetched()
    every.run(lambda *news: seen.append(news))
    corpus = scan(tmp_path / "new/folder")
    assert corpus.actors == tuple(range(1, 25))
    assert all(take.video and take.video.suffix == ".mp4" and take.openface for take in corpus.takes)
    assert not (corpus.unknown or corpus.duplicates)
    for word in ("CC BY-NC-SA 4.0", "10.5281/zenodo.1188976", "10.5281/zenodo.3255102", "e0196391"):
        assert word in summary
    assert "26 archives" in summary and len(server.fetched()) == 26
    assert all(0 < done <= total for _, done, total in seen)
    assert not (tmp_path / "new/folder" / WORKPLACE).exists()


def test_only_the_chosen_actors_are_fetched_and_unpacked(tmp_path: Path, server: Server) -> None:
    plan(tmp_path, server, actors=[3, 20, 3], what=("landmarks", "video")).run()
    assert sorted({name for name, _ in server.fetched()}) == [
        "FacialTracking_Actors_01-24.zip",
        "Video_Speech_Actor_03.zip",
        "Video_Speech_Actor_20.zip",
    ]
    assert scan(tmp_path).actors == (3, 20)
    assert {path.name for path in (tmp_path / "landmarks").iterdir()} == {"Actor_03", "Actor_20"}


def test_a_second_run_asks_for_what_is_missing_alone(tmp_path: Path, server: Server) -> None:
    plan(tmp_path, server, what=("video", "landmarks")).run()
    asked = len(server.asked)
    again = plan(tmp_path, server, what=("video", "landmarks"))
    again.run()
    assert "nothing to fetch" in again.summary() and (again.jobs, again.size) == ((), 0)
    assert len(server.asked) == asked, "the server nothing"
    later = plan(tmp_path, server, actors=[1, 2], what=("video", "landmarks"))
    assert [job.actors for job in later.jobs] == [(2,), (2,)]
    later.run()
    assert scan(tmp_path).actors == (1, 2)


def test_a_file_that_was_lost_is_put_back_and_files_of_the_user_stay(tmp_path: Path, server: Server) -> None:
    plan(tmp_path, server).run()
    lost, shortened = sorted((tmp_path / "Actor_01").glob("*.mp4"))
    lost.unlink()
    shortened.write_bytes(b"short")
    (tmp_path / "Actor_01/notes.txt").write_text("mine")
    plan(tmp_path, server).run()
    assert (tmp_path / "Actor_01/notes.txt").read_text() == "mine"
    (tmp_path / "Actor_01/notes.txt").unlink()
    assert whole(tmp_path)
    (tmp_path / "Actor_01" / MARKER).write_text('{"files": 3')
    assert len(plan(tmp_path, server).jobs) == 1, "a broken marker means not finished"


def test_a_folder_of_someone_else_is_not_touched(tmp_path: Path, server: Server) -> None:
    (tmp_path / "Actor_01").mkdir()
    (tmp_path / CLIP).write_text("re-encoded")
    assert "Actor_01" in error_of(lambda: plan(tmp_path, server))
    assert (tmp_path / CLIP).read_text() == "re-encoded"


def test_the_other_shape_of_zenodos_answer(tmp_path: Path, server: Server) -> None:
    server.entries = True
    plan(tmp_path, server).run()
    assert whole(tmp_path)


BIG = 300_000  # bytes of a video, in an archive large enough to be cut


def big(server: Server) -> bytes:
    content = zipped(videos(1, BIG))
    server.records[VIDEO][ARCHIVE] = content
    return content


def test_a_cut_line_is_taken_up_where_it_broke(tmp_path: Path, server: Server, pauses: list[float]) -> None:
    big(server)
    server.cuts = [200_000, 200_000]
    plan(tmp_path, server).run()
    starts = [int(range_[6:-1]) if range_ else 0 for _, range_ in server.fetched()]
    assert len(starts) == 3 and starts[0] == 0 < starts[1] < starts[2]
    assert pauses == [1.0, 2.0] and whole(tmp_path, BIG)


def test_a_killed_run_goes_on_from_its_partial_file(tmp_path: Path, server: Server) -> None:
    content = big(server)
    (tmp_path / WORKPLACE).mkdir()
    (tmp_path / WORKPLACE / f"{ARCHIVE}.part").write_bytes(content[:123_456])
    going_on = plan(tmp_path, server)
    assert going_on.here == 123_456
    going_on.run()
    assert server.fetched() == [(ARCHIVE, "bytes=123456-")] and whole(tmp_path, BIG)
    assert not (tmp_path / WORKPLACE).exists()


def test_a_run_killed_after_fetching_only_unpacks(tmp_path: Path, server: Server) -> None:
    (tmp_path / WORKPLACE / "unpacked/Actor_01").mkdir(parents=True)
    (tmp_path / WORKPLACE / "unpacked/Actor_01/half.mp4").touch()
    (tmp_path / WORKPLACE / ARCHIVE).write_bytes(server.records[VIDEO][ARCHIVE])
    plan(tmp_path, server).run()
    assert server.fetched() == [] and whole(tmp_path)


@pytest.mark.parametrize("ranges", ["ignored", "wrong", "refused"])
def test_a_server_that_cannot_continue_starts_anew(tmp_path: Path, server: Server, ranges: str) -> None:
    big(server)
    server.cuts, server.ranges = [200_000], ranges
    plan(tmp_path, server).run()
    assert whole(tmp_path, BIG)


def test_too_many_cuts_end_the_run_and_keep_what_came(
    tmp_path: Path, server: Server, pauses: list[float]
) -> None:
    content = big(server)
    server.cuts = [100_000, *[0] * 20]
    assert "run again" in error_of(plan(tmp_path, server).run)
    assert len(server.fetched()) == ATTEMPTS and len(pauses) == ATTEMPTS - 1
    part = tmp_path / WORKPLACE / f"{ARCHIVE}.part"
    assert 0 < part.stat().st_size <= 100_000 and content.startswith(part.read_bytes())
    server.cuts = []
    plan(tmp_path, server).run()
    assert whole(tmp_path, BIG)


def test_progress_earns_further_attempts_but_not_without_ranges(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zenodo_module, "PROGRESS", 1)
    big(server)
    server.cuts, server.ranges = [200_000, 80_000] * 50, "ignored"
    assert "cut" in error_of(plan(tmp_path, server).run)
    assert len(server.fetched()) < 3 * ATTEMPTS
    shutil.rmtree(tmp_path / WORKPLACE)
    server.asked.clear()
    server.cuts, server.ranges = [70_000] * (ATTEMPTS + 2), "kept"
    plan(tmp_path, server).run()
    assert len(server.fetched()) > ATTEMPTS and whole(tmp_path, BIG)


def test_a_wrong_checksum_removes_the_file_and_unpacks_nothing(tmp_path: Path, server: Server) -> None:
    server.claims[ARCHIVE] = {"checksum": "md5:" + "0" * 32}
    assert "checksum" in error_of(plan(tmp_path, server).run)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    server.claims.clear()
    (tmp_path / WORKPLACE / f"{ARCHIVE}.part").write_bytes(b"spoilt")
    assert "checksum" in error_of(plan(tmp_path, server).run)
    (tmp_path / WORKPLACE / f"{ARCHIVE}.part").write_bytes(noise(5, 50_000))  # longer than it can be
    plan(tmp_path, server).run()
    assert whole(tmp_path)


def test_a_server_that_lies_about_the_size(tmp_path: Path, server: Server) -> None:
    server.extra = b"x" * 1_000_000
    stated = len(server.records[VIDEO][ARCHIVE])
    assert str(stated) in error_of(plan(tmp_path, server).run)
    assert visible(tmp_path) == set() and len(server.fetched()) == 1
    server.chunked = True  # its length is not said beforehand: what comes beyond is left
    written: list[int] = []
    plan(tmp_path, server).run(lambda what, done, total: written.append(done))
    assert max(written) <= stated and whole(tmp_path)
    server.claims["Video_Speech_Actor_02.zip"] = {"size": 10**9}
    assert "1000000000" in error_of(plan(tmp_path, server, actors=[2]).run)


@pytest.mark.parametrize(("status", "tries"), [(404, 1), (403, 1), (500, ATTEMPTS), (429, ATTEMPTS)])
def test_errors_of_the_server(
    tmp_path: Path, server: Server, pauses: list[float], status: int, tries: int
) -> None:
    listing = f"/api/records/{VIDEO}"
    server.answers[listing] = (status, b"")
    assert str(status) in error_of(lambda: plan(tmp_path, server))
    assert len(server.asked) == tries
    assert pauses == [3.0] * (tries - 1)  # Retry-After
    del server.answers[listing]
    server.answers[f"{listing}/files/{ARCHIVE}/content"] = (status, b"")
    assert str(status) in error_of(plan(tmp_path, server).run)
    assert len(server.fetched()) == tries


def test_a_refused_connection(tmp_path: Path, server: Server, pauses: list[float]) -> None:
    server.url = "http://127.0.0.1:9"
    assert "check the connection" in error_of(lambda: plan(tmp_path, server))
    assert pauses == [2.0, 4.0, 8.0]  # the first time at once
    server.url = "zenodo"
    assert "https://" in error_of(lambda: plan(tmp_path, server))


def test_a_server_that_stalls_is_left(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = plan(tmp_path, server)

    def stalled(response: object, size: int) -> None:
        raise requests.exceptions.ConnectionError("Read timed out.")

    def late(*arguments: object, timeout: object, **options: object) -> None:
        assert timeout == (10.0, 60.0)
        raise requests.exceptions.ReadTimeout

    monkeypatch.setattr(requests.Response, "iter_content", stalled)
    assert "cut 5 times in a row" in error_of(wanted.run)
    monkeypatch.setattr(requests.Session, "get", late)
    assert "no answer (ReadTimeout)" in error_of(lambda: plan(tmp_path, server))


@pytest.mark.parametrize(
    "answer",
    [
        b"<html>welcome to the hotel's network</html>",
        b"\xff\xfe",
        b"[]",
        b"{}",
        b'{"files": null}',
        b'{"files": [{"key": "a.zip"}]}',
        b'{"files": [{"key": "a.zip", "size": "big", "checksum": "md5:00000000000000000000000000000000"}]}',
        b'{"files": [{"key": "a.zip", "size": 5, "checksum": "sha1:0000"}]}',
        b'{"files": ["a.zip"]}',
        b'{"files": []}',
    ],
)
def test_an_answer_of_another_shape(tmp_path: Path, server: Server, answer: bytes) -> None:
    server.answers[f"/api/records/{VIDEO}"] = (200, answer)
    assert "by hand" in error_of(lambda: plan(tmp_path, server))


def test_a_record_or_an_archive_that_lacks_an_actor(tmp_path: Path, server: Server) -> None:
    del server.records[VIDEO]["Video_Speech_Actor_07.zip"]
    assert "Actor_07" in error_of(lambda: plan(tmp_path, server, actors=[6, 7]))
    server.records[VIDEO][ARCHIVE] = zipped(videos(2))
    assert "actor 1" in error_of(plan(tmp_path, server).run)
    assert visible(tmp_path) == set()


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("../01-01-05-01-01-01-01.mp4", 0),
        ("x/../../01-01-06-01-01-01-01.mp4", 0),
        ("/tmp/01-01-06-01-01-01-01.mp4", 0),  # noqa: S108
        ("..\\01-01-06-01-01-01-01.mp4", 0),
        ("C:\\01-01-06-01-01-01-01.mp4", 0),
        ("Actor_01/01-01-06-01-01-01-01.mp4", stat.S_IFLNK | 0o777),
        ("Actor_01/01-01-06-01-01-01-01.mp4", stat.S_IFCHR | 0o666),
    ],
)
def test_a_member_is_a_plain_file_under_its_own_name(
    tmp_path: Path, server: Server, name: str, mode: int
) -> None:
    """Wherever the path in the archive leads, and whatever it says it is."""
    member = zipfile.ZipInfo(name)
    member.external_attr = mode << 16
    server.records[VIDEO][ARCHIVE] = zipped(videos(1), member)
    plan(tmp_path / "here", server).run()
    files = [path for path in tmp_path.rglob("*") if not path.is_dir()]
    assert all(path.parent == tmp_path / "here/Actor_01" and not path.is_symlink() for path in files)
    assert {path.name for path in files} <= {MARKER, *(f"0{n}-01-05-01-01-01-01.mp4" for n in (1, 2))} | {
        "01-01-06-01-01-01-01.mp4"
    }
    assert not Path("/tmp/01-01-06-01-01-01-01.mp4").exists()  # noqa: S108


@pytest.mark.parametrize("damage", ["no zip at all", "flipped bytes", "locked", "a bomb", "a hidden bomb"])
def test_a_damaged_archive(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    content, said = bytearray(zipped(videos(1))), "no sound zip"
    if damage == "no zip at all":
        content = bytearray(b"<html>404</html>")
    elif damage == "flipped bytes":
        content[500:520] = bytes(20)
    elif damage == "locked":
        for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
            content[content.index(signature) + offset] |= 1
    elif damage == "a bomb":
        monkeypatch.setattr("cfnsr.corpus.download.SLACK", 0)
        content, said = bytearray(zipped({CLIP: bytes(1_000_000)})), "1000000 bytes"
    else:  # it says that it is small
        content = bytearray(zipped({CLIP: bytes(1_000_000)}))
        content = content.replace((1_000_000).to_bytes(4, "little"), (10).to_bytes(4, "little"))
    server.records[VIDEO][ARCHIVE] = bytes(content)
    message = error_of(plan(tmp_path, server).run)
    assert said in message and ARCHIVE in message
    assert visible(tmp_path) == set()
    assert all(path.stat().st_size <= len(content) for path in tmp_path.rglob("*") if path.is_file())


def test_a_full_disk_is_told_before_anything_is_fetched(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = plan(tmp_path / "not/yet", server, actors=None)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=wanted.room - 1))
    assert "make room" in error_of(wanted.run)
    assert server.fetched() == [] and not (tmp_path / "not").exists()
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=wanted.room))
    wanted.run()


def test_room_counts_archives_and_what_they_hold(tmp_path: Path, server: Server) -> None:
    sizes = [len(server.records[VIDEO][f"Video_Speech_Actor_{actor:02d}.zip"]) for actor in (1, 2)]
    passing = plan(tmp_path, server, actors=[1, 2])
    keeping = plan(tmp_path, server, actors=[1, 2], keep_archives=True)
    assert passing.room >= sum(sizes) + max(sizes)
    assert keeping.room >= 2 * sum(sizes)
    keeping.run()
    assert {path.name for path in (tmp_path / WORKPLACE).iterdir()} == {ARCHIVE, "Video_Speech_Actor_02.zip"}
    # With the archives kept, an actor's folder that is lost needs no second fetch.
    shutil.rmtree(tmp_path / "Actor_01")
    server.asked.clear()
    plan(tmp_path, server, actors=[1, 2], keep_archives=True).run()
    assert server.fetched() == [] and len(visible(tmp_path)) == 4


def test_a_disk_that_fills_up_while_fetching(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = plan(tmp_path, server)
    real = Path.open

    def full(path: Path, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        if path.suffix == ".part":
            raise OSError(28, "No space left on device")
        return real(path, mode, *arguments, **options)

    monkeypatch.setattr(Path, "open", full)
    assert "No space left" in error_of(wanted.run)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"actors": [0]}, "expected numbers from 1 to 24"),
        ({"actors": [25]}, "expected numbers from 1 to 24"),
        ({"actors": []}, "expected numbers from 1 to 24"),
        ({"what": ()}, "expected some of video, audio, landmarks"),
        ({"what": ("videos",)}, "expected some of video, audio, landmarks"),
        ({"folder": "taken"}, "is a file"),
    ],
)
def test_what_cannot_be_asked_for(tmp_path: Path, server: Server, options: dict[str, Any], said: str) -> None:
    (tmp_path / "taken").touch()
    folder = tmp_path / options.pop("folder", "new")
    assert said in error_of(lambda: plan(folder, server, **options))
    assert server.asked == []
