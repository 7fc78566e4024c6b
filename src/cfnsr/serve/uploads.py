"""A request's body -> one private file, within limits, however it is sent."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import stat
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect, Request

from cfnsr.serve.limits import MEBIBYTE, Limits
from cfnsr.serve.refusals import Refusal

try:
    import fcntl
except ImportError:  # on Windows
    fcntl = None  # type: ignore[assignment]

PART = "file"  # name of the form's part
NAME = "upload"  # of every file: what the client calls it is never looked at but for the suffix
SUFFIXES = frozenset(
    f".{name}"
    for name in (
        *("3gp", "avi", "flv", "m2ts", "m4v", "mkv", "mov", "mp4", "mpeg", "mpg", "mts", "ogv", "ts", "webm"),
        *("aac", "flac", "m4a", "mp3", "oga", "ogg", "opus", "wav", "wma", "wmv"),
    )
)
BESIDES = 64 * 1024  # bytes that a body may have besides the file
HEADERS = 8 * 1024  # bytes of a part's headers
DRAIN_SECONDS, DRAIN_BYTES = 2.0, 64 * MEBIBYTE  # what is read of a body that is declined
PREFIX = "cfnsr-serve-"
STALE = 600.0  # seconds after which a folder that no server touches is a dead one's
_held: dict[Path, int] = {}  # folders of this process, and what their locks hang on
FORM = f"expected multipart/form-data with one part named {PART!r}"


def private_folder() -> Path:
    """A new folder that only this user may enter; what dead servers have left behind is deleted."""
    sweep()
    folder = Path(tempfile.mkdtemp(prefix=PREFIX))
    if fcntl is not None:
        _held[folder] = os.open(folder, os.O_RDONLY)
        fcntl.flock(_held[folder], fcntl.LOCK_EX)
    return folder


def release(folder: Path) -> None:
    """Let go of a private folder, which may be deleted then."""
    if folder in _held:
        os.close(_held.pop(folder))


def sweep(older: float = STALE) -> None:
    """Delete the folders of servers that were killed: those that nobody has touched for so many seconds.

    A server touches its own one with `touch`, and holds a lock on it, where the system has such, which stays
    while it sleeps. Links, and folders of other users, are left alone.
    """
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with suppress(OSError):
            found = folder.lstat()
            own = not hasattr(os, "getuid") or found.st_uid == os.getuid()
            if stat.S_ISDIR(found.st_mode) and own and time.time() - found.st_mtime > older:
                _delete_unlocked(folder)


def _delete_unlocked(folder: Path) -> None:
    """Delete a folder that no living process holds; raises `OSError` where one does."""
    if fcntl is None:
        shutil.rmtree(folder, ignore_errors=True)
        return
    held = os.open(folder, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(held)


def suffix_of(name: str) -> str:
    """The suffix of a file that a client names, if it is one of a recording.

    >>> suffix_of("../../My Film.MP4"), suffix_of("run.sh"), suffix_of("")
    ('.mp4', '', '')
    """
    suffix = os.path.splitext(name)[1].lower()  # noqa: PTH122 - a name of another system, no path here
    return suffix if suffix in SUFFIXES else ""


async def receive(request: Request, folder: Path, limits: Limits) -> Path:
    """Write the file of a form into a folder, while it arrives; never more than the limit.

    Returns:
        The file, called `NAME` and a known suffix or none.

    Raises:
        Refusal: too large, too slow, cut off, or another form. What was written so far lies in the folder.
    """
    try:
        return await _receive(request, folder, limits)
    except Refusal:
        await _drain(request)
        raise
    except ClientDisconnect:
        raise Refusal(400, "bad request", "the upload was cut off: send it again") from None
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise Refusal(507, "full disk", "the server's disk is full: try again later") from None


async def _receive(request: Request, folder: Path, limits: Limits) -> Path:
    form = _Form(_boundary(request), limits.max_bytes)
    told = request.headers.get("content-length", "")
    if told.isdecimal() and int(told) > limits.max_bytes + BESIDES:
        raise _too_large(limits.max_bytes)
    stream = request.stream()
    count = 0
    handle: BinaryIO | None = None
    try:
        async with asyncio.timeout(limits.upload_seconds):
            while True:
                async with asyncio.timeout(limits.stall_seconds):
                    chunk = await anext(stream, None)
                if chunk is None:
                    break
                count += len(chunk)
                if count > limits.max_bytes + BESIDES:
                    raise _too_large(limits.max_bytes)
                form.add(chunk)
                if len(form.waiting) >= MEBIBYTE or (form.complete and form.waiting):
                    if handle is None:
                        handle = await asyncio.to_thread(_create, folder / f"{NAME}{form.suffix}")
                    await asyncio.to_thread(handle.write, form.take())
        if not form.complete:
            raise Refusal(400, "bad request", f"the form has no end or no part {PART!r}: {FORM}")
        if handle is None:  # an empty file
            handle = await asyncio.to_thread(_create, folder / f"{NAME}{form.suffix}")
    except TimeoutError:
        message = f"nothing arrived for {limits.stall_seconds:g} s, or not all in {limits.upload_seconds:g} s"
        raise Refusal(408, "timeout", f"{message}: send it again", {"connection": "close"}) from None
    finally:
        if handle is not None:
            handle.close()
    return folder / f"{NAME}{form.suffix}"


def _create(path: Path) -> BinaryIO:
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")


def _boundary(request: Request) -> bytes:
    kind, options = parse_options_header(request.headers.get("content-type"))
    boundary = options.get(b"boundary", b"")
    if kind != b"multipart/form-data" or not 0 < len(boundary) <= 200:
        raise Refusal(415, "bad request", f"the body is no form with a file: {FORM}")
    return boundary


def _too_large(most: int) -> Refusal:
    message = f"the file is too large: expected at most {most / MEBIBYTE:.3g} MiB; cut it or compress it"
    return Refusal(413, "too large", message, {"connection": "close"})


class _Form:
    """Takes the bytes of a form and gives those of its file.

    Args:
        boundary: between the parts.
        most: bytes of the file.
    """

    def __init__(self, boundary: bytes, most: int) -> None:
        self.most = most
        self.waiting = bytearray()  # of the file, to be written
        self.suffix = ""
        self.size = 0
        self.files = 0
        self.ended = False
        self._field, self._value = bytearray(), bytearray()
        self._headers: dict[str, str] = {}
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._headers_begin,
                "on_header_field": lambda data, start, end: self._keep(self._field, data[start:end]),
                "on_header_value": lambda data, start, end: self._keep(self._value, data[start:end]),
                "on_header_end": self._header_ends,
                "on_headers_finished": self._part_begins,
                "on_part_data": self._part,
                "on_end": self._end,
            },
        )

    @property
    def complete(self) -> bool:
        """Whether the form has ended, with a file."""
        return self.ended and self.files == 1

    def add(self, chunk: bytes) -> None:
        """Bytes of the form, as they come."""
        try:
            self._parser.write(chunk)
        except FormParserError:
            raise Refusal(400, "bad request", f"the form is damaged: {FORM}") from None

    def take(self) -> bytes:
        """Bytes of the file that follow on those taken before."""
        taken = bytes(self.waiting)
        self.waiting.clear()
        return taken

    def _headers_begin(self) -> None:
        self._headers = {}

    def _keep(self, into: bytearray, data: bytes) -> None:
        into += data
        if len(into) > HEADERS:
            raise Refusal(400, "bad request", f"the form's headers are too long: {FORM}")

    def _header_ends(self) -> None:
        self._headers[self._field.decode("latin-1").lower()] = self._value.decode("latin-1")
        self._field.clear()
        self._value.clear()

    def _part_begins(self) -> None:
        _, options = parse_options_header(self._headers.get("content-disposition"))
        name = options.get(b"name", b"").decode("latin-1")
        if name != PART:
            raise Refusal(
                422,
                "bad request",
                f"the form has a part {name[:40]!r}: {FORM}; parameters are part of the address, such as "
                "?audio_stream=1",
            )
        self.files += 1
        self.suffix = suffix_of(options.get(b"filename", b"").decode("latin-1"))
        if self.files > 1:
            raise Refusal(422, "bad request", f"the form has two files: {FORM}")

    def _part(self, data: bytes, start: int, end: int) -> None:
        self.size += end - start
        if self.size > self.most:
            raise _too_large(self.most)
        self.waiting += data[start:end]

    def _end(self) -> None:
        self.ended = True


async def _drain(request: Request) -> None:
    """Read a little on: a client that still sends would not see the answer if the line were cut."""
    if "expect" in request.headers:  # it waits for leave to send, and gets the answer instead
        return
    count = 0
    with suppress(ClientDisconnect, TimeoutError, RuntimeError):
        async with asyncio.timeout(DRAIN_SECONDS):
            async for chunk in request.stream():
                count += len(chunk)
                if count > DRAIN_BYTES:
                    break
