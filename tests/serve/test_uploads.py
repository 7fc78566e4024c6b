"""Uploads: taken while they arrive, within limits, and never left behind."""

import asyncio
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.requests import Request

from cfnsr.serve import uploads
from cfnsr.serve.limits import Limits
from cfnsr.serve.refusals import Refusal
from cfnsr.serve.uploads import receive, suffix_of, sweep

BOUNDARY = "xYzZy"
KIND = f"multipart/form-data; boundary={BOUNDARY}"


def part(content: bytes, name: str = "file", filename: str | None = "talk.mp4") -> bytes:
    said = f'form-data; name="{name}"' + ("" if filename is None else f'; filename="{filename}"')
    return f"--{BOUNDARY}\r\nContent-Disposition: {said}\r\n\r\n".encode() + content + b"\r\n"


def form(*parts: bytes) -> bytes:
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


def request(chunks: Iterable[bytes | None], *, kind: str = KIND, **headers: str) -> Request:
    """A request whose body comes in chunks; None is where nothing comes any more."""
    waiting = iter(chunks)

    async def come() -> dict[str, Any]:
        chunk = next(waiting, b"end")
        if chunk is None:
            await asyncio.Event().wait()
        if chunk == b"end":
            return {"type": "http.request", "body": b"", "more_body": False}
        if chunk == b"gone":
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": chunk, "more_body": True}

    named = {"content-type": kind, **{name.replace("_", "-"): value for name, value in headers.items()}}
    coded = [(name.encode(), value.encode()) for name, value in named.items()]
    return Request({"type": "http", "method": "POST", "path": "/jobs", "headers": coded}, come)


def taken(chunks: Iterable[bytes | None], folder: Path, *, limits: Limits | None = None, **how: Any) -> Path:
    return asyncio.run(receive(request(chunks, **how), folder, limits or Limits()))


def declined(
    chunks: Iterable[bytes | None], folder: Path, *, limits: Limits | None = None, **how: Any
) -> Refusal:
    with pytest.raises(Refusal) as refusal:
        taken(chunks, folder, limits=limits, **how)
    return refusal.value


def bytes_in(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*"))


@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=400), size=st.integers(1, 600))
def test_any_cut_into_chunks_gives_the_file(tmp_path: Path, content: bytes, size: int) -> None:
    content = content.replace(BOUNDARY.encode(), b"")
    body = form(part(content))
    folder = Path(tempfile.mkdtemp(dir=tmp_path))
    file = taken([body[at : at + size] for at in range(0, len(body), size)], folder)
    assert file == folder / "upload.mp4" and file.read_bytes() == content


def test_no_more_is_written_than_the_limit(tmp_path: Path) -> None:
    limits = Limits(max_bytes=5_000)
    sent = []

    def endless() -> Iterable[bytes]:
        yield part(b"")[:-2]
        while len(sent) < 10_000:
            sent.append(1)
            yield bytes(1_000)

    refusal = declined(endless(), tmp_path, limits=limits, content_length="900")  # which is a lie
    assert (refusal.status, refusal.reason) == (413, "too large")
    assert bytes_in(tmp_path) <= 5_000
    whole, more = [form(part(bytes(size))) for size in (5_000, 5_001)]
    assert taken([whole], tmp_path, limits=limits).stat().st_size == 5_000
    assert declined([more], tmp_path, limits=limits).status == 413, "by a single byte"
    (tmp_path / "upload.mp4").unlink()
    behind = [form(part(b"x")), *[bytes(9_000)] * 20]
    assert declined(behind, tmp_path, limits=limits).status == 413, "what follows the file counts too"


@pytest.mark.parametrize(("headers", "read"), [({}, 50), ({"expect": "100-continue"}, 0)])
def test_a_length_beyond_the_limit_is_declined_at_once(
    tmp_path: Path, headers: dict[str, str], read: int
) -> None:
    """A client that sends without asking is read for a while, so that it sees the answer."""
    left = iter([bytes(1_000)] * 50)
    refusal = declined(left, tmp_path, content_length=str(10**12), **headers)
    assert refusal.status == 413 and refusal.headers == {"connection": "close"}
    assert len(list(left)) == 50 - read


def test_a_client_that_goes_away(tmp_path: Path) -> None:
    refusal = declined([part(bytes(100)), b"gone"], tmp_path)
    assert (refusal.status, refusal.reason) == (400, "bad request")


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (form(part(b"x"), part(b"y")), 422, "another part"),
        (form(part(b"x", filename=None)), 422, "another part"),
        (form(part(b"x", "film")), 422, "a part 'film'"),
        (form(part(b"x"), part(b"1", "audio_stream")), 422, "such as ?audio_stream=1"),
        *((body, 400, "no end or no part 'file'") for body in (form(), part(b"x"), b"")),
        (b"hello" * 100, 400, "damaged"),
        (form(part(b"x", filename="a" * 9_000)), 400, ""),
    ],
)
def test_other_forms(tmp_path: Path, body: bytes, status: int, message: str) -> None:
    refusal = declined([body], tmp_path)
    assert refusal.status == status and message in str(refusal)
    assert "expected multipart/form-data with one part named 'file'" in str(refusal)


LONG = "multipart/form-data; boundary=" + "b" * 300


@pytest.mark.parametrize("kind", ["multipart/form-data", LONG, "application/json", ""])
def test_what_is_no_form(tmp_path: Path, kind: str) -> None:
    refusal = declined([form(part(b"x"))], tmp_path, kind=kind)
    assert refusal.status == 415 and "no form" in str(refusal)


@pytest.mark.parametrize(
    ("name", "suffix"),
    [
        ("Film.MOV", ".mov"),
        ("C:\\films\\a.webm", ".webm"),
        ("/etc/passwd", ""),
        ("a.mp4/../../b", ""),
        ("a.mp4\0.sh", ""),
        (".mp4", ""),
        ("a.tar.gz", ""),
        ("ä.mkv", ".mkv"),
    ],
)
def test_only_known_suffixes_are_taken_from_a_name(tmp_path: Path, name: str, suffix: str) -> None:
    assert suffix_of(name) == suffix
    if "\\" not in name:
        file = taken([form(part(b"x", filename=name))], tmp_path)
        assert file.parent == tmp_path and file.name == f"upload{suffix}"


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfileobj", full)
    assert declined([form(part(b"x"))], tmp_path).status == 507


def test_what_dead_servers_left_is_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    make: Callable[[str], Path] = tmp_path.joinpath
    for name in ("cfnsr-serve-dead", "cfnsr-serve-alive", "other-serve-dead", "kept"):
        (make(name) / "x").mkdir(parents=True)
        (make(name) / "x" / "upload.mp4").write_bytes(b"film")
    make("cfnsr-serve-link").symlink_to(make("kept"))
    make("cfnsr-serve-file").write_text("a file")
    long_ago = time.time() - 601
    for path in tmp_path.iterdir():
        if path.name != "cfnsr-serve-alive":
            os.utime(path, (long_ago, long_ago), follow_symlinks=False)
    with uploads.private_folder() as held:
        assert stat.S_IMODE(held.stat().st_mode) == 0o700, "nobody else may enter"
        os.utime(held, (long_ago, long_ago))
        sweep()
        assert held.exists(), "its server is alive"
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"cfnsr-serve-alive", "other-serve-dead", "kept", "cfnsr-serve-link", "cfnsr-serve-file"}
    assert (make("kept") / "x" / "upload.mp4").exists()
    shutil.rmtree(tmp_path)
