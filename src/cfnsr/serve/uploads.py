"""A request's body -> one private file, within limits, however it is sent."""

from __future__ import annotations

import asyncio
import os
import shutil
import stat
import tempfile
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import BinaryIO

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from cfnsr.files import FULL
from cfnsr.serve.limits import MEBIBYTE, Limits
from cfnsr.serve.refusals import Refusal

try:
    import fcntl
except ImportError:  # on Windows
    fcntl = None  # type: ignore[assignment]

PART = "file"  # name of the form's part
NAME = "upload"  # of every file: what the client calls it is never looked at but for the suffix
SUFFIXES = {
    *(".3gp", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".ogv"),
    *(".ts", ".webm", ".aac", ".flac", ".m4a", ".mp3", ".oga", ".ogg", ".opus", ".wav", ".wma", ".wmv"),
}
BESIDES = 64 * 1024  # bytes that a body may have besides the file
DRAIN_SECONDS, DRAIN_BYTES = 10.0, 64 * MEBIBYTE  # what is read of a body that is declined
PREFIX = "cfnsr-serve-"
STALE = 600.0  # seconds after which a folder that no server holds is a dead one's
FORM = f"expected multipart/form-data with one part named {PART!r} that has a filename, and nothing else"


@contextmanager
def private_folder() -> Iterator[Path]:
    """Make a folder that only this user may enter, and delete it at the end; first, what dead servers left.

    It is locked as long as this process lives, so that no other server takes it for a dead one's.
    """
    sweep()
    with tempfile.TemporaryDirectory(prefix=PREFIX, ignore_cleanup_errors=True) as name:
        folder = Path(name)
        with nullcontext() if fcntl is None else _locked(folder):
            yield folder


def sweep() -> None:
    """Delete the folders of servers that were killed: those of this user that no process has locked.

    Links are left alone, and so is all where the system has no such locks.
    """
    if fcntl is None:
        return
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with suppress(OSError):
            found = folder.lstat()
            stale = time.time() - found.st_mtime > STALE  # else it may be about to be locked
            if stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and stale:
                with _locked(folder):
                    shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Lock a folder while this lasts; `OSError` where somebody else has."""
    held = os.open(folder, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(held)


def suffix_of(name: str) -> str:
    """Take the suffix from a client's name of a file, if it is one of a recording.

    >>> suffix_of("../../My Film.MP4"), suffix_of("run.sh"), suffix_of("")
    ('.mp4', '', '')
    """
    suffix = os.path.splitext(name)[1].lower()  # noqa: PTH122 - a name of another system, no path here
    return suffix if suffix in SUFFIXES else ""


async def receive(request: Request, folder: Path, limits: Limits) -> Path:
    """Write the file of a form into a folder; `Refusal` if it is too large, too slow, cut off or no form.

    While it arrives it lies in a temporary file without a name, which the system deletes whatever happens.
    """
    try:
        async with asyncio.timeout(limits.upload_seconds):
            upload = await _parse(request, limits)
        file = folder / f"{NAME}{suffix_of(upload.filename or '')}"
        await asyncio.to_thread(_keep, upload.file, file)
    except Refusal:
        await drain(request)
        raise
    except TimeoutError:
        await drain(request)
        message = f"nothing arrived for {limits.stall_seconds:g} s, or not all in {limits.upload_seconds:g} s"
        raise Refusal(408, "timeout", f"{message}: send it again", {"connection": "close"}) from None
    except ClientDisconnect:
        raise Refusal(400, "bad request", "the upload was cut off: send it again") from None
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise Refusal(507, "full disk", "the server's disk is full: try again later") from None
    return file


async def _parse(request: Request, limits: Limits) -> UploadFile:
    kind, options = parse_options_header(request.headers.get("content-type"))
    if kind != b"multipart/form-data" or not 0 < len(options.get(b"boundary", b"")) <= 200:
        raise Refusal(415, "bad request", f"the body is no form with a file: {FORM}")
    parser = MultiPartParser(request.headers, _arriving(request, limits), max_files=1, max_fields=0)
    try:
        form = await parser.parse()
    except (MultiPartException, FormParserError) as error:
        if str(error).startswith("Too many"):  # files or fields
            message = f"the form has another part: {FORM}; parameters are part of the address, such as "
            raise Refusal(422, "bad request", f"{message}?audio_stream=1") from None
        raise Refusal(400, "bad request", f"the form is damaged ({error}): {FORM}") from None
    if not form:
        raise Refusal(400, "bad request", f"the form has no end or no part {PART!r}: {FORM}")
    upload = form.get(PART)
    if not isinstance(upload, UploadFile):
        raise Refusal(422, "bad request", f"the form has a part {next(iter(form))[:40]!r}: {FORM}")
    if (upload.size or 0) > limits.max_bytes:
        raise _too_large(limits)
    return upload


async def _arriving(request: Request, limits: Limits) -> AsyncGenerator[bytes, None]:
    """Yield the body, as long as something comes and it is not too large."""
    length = request.headers.get("content-length", "")
    size = int(length) if length.isdecimal() else 0
    body = request.stream()
    arrived = 0
    while max(size, arrived) <= limits.max_bytes + BESIDES:
        async with asyncio.timeout(limits.stall_seconds):
            chunk = await anext(body)
        if not chunk:
            return
        arrived += len(chunk)
        yield chunk
    raise _too_large(limits)


def _too_large(limits: Limits) -> Refusal:
    most = f"{limits.max_bytes / MEBIBYTE:.3g} MiB"
    message = f"the file is too large: expected at most {most}; cut it or compress it"
    return Refusal(413, "too large", message, {"connection": "close"})


def _keep(upload: BinaryIO, file: Path) -> None:
    file.parent.mkdir(exist_ok=True)
    with upload, file.open("xb") as kept:
        shutil.copyfileobj(upload, kept, MEBIBYTE)


async def drain(request: Request) -> None:
    """Read a little on: a client that still sends would not see the answer if the line were cut."""
    if "expect" in request.headers:  # it waits for leave to send, and gets the answer instead
        return
    left = DRAIN_BYTES
    with suppress(ClientDisconnect, TimeoutError, RuntimeError):
        async with asyncio.timeout(DRAIN_SECONDS):
            async for chunk in request.stream():
                if (left := left - len(chunk)) < 0:
                    break
