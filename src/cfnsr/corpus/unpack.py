"""Unpacking a zip archive from outside without trusting what it says of itself."""

import shutil
import stat
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from cfnsr.corpus.zenodo import Progress
from cfnsr.errors import InputError

CHUNK = 1 << 20  # bytes


def unpack(
    archive: Path,
    folder: Path,
    *,
    place: Callable[[str], str | None],
    limit: int,
    progress: Progress,
) -> dict[str, int]:
    """Unpack the members that are wanted into a folder; gives the size of each by its place.

    A member is written where `place` puts it, never where its own path says. An archive with a path
    that leads outside, a link, a device or a locked member is refused before anything is written, and so is
    one that says it unpacks to more than `limit` bytes. What a member holds beyond its declared size
    ends the unpacking.

    Args:
        place: a member's file name -> its path in `folder`, or None to leave it out.
        limit: bytes all members together may have.

    Raises:
        InputError: such an archive, a damaged one, or a full disk.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            members = [member for member in opened.infolist() if not member.is_dir()]
            _check(archive, members, limit)
            wanted: dict[str, zipfile.ZipInfo] = {}
            for member in members:
                target = place(PurePosixPath(member.filename).name)
                if target is not None and wanted.setdefault(target, member) is not member:
                    raise InputError(f"{archive}: holds {target} twice; nothing was unpacked")
            total, done = sum(member.file_size for member in wanted.values()), 0
            _check_room(archive, folder, total)
            for target, member in wanted.items():
                path = folder / target
                path.parent.mkdir(parents=True, exist_ok=True)
                with opened.open(member) as source, path.open("wb") as sink:
                    shutil.copyfileobj(source, sink, CHUNK)
                if path.stat().st_size != member.file_size:
                    raise zipfile.BadZipFile(f"{member.filename} has not its declared size")
                done += member.file_size
                progress(f"unpacking {archive.name}", done, total)
    except (
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        NotImplementedError,
        RuntimeError,
        UnicodeError,
    ) as error:
        raise InputError(
            f"{archive}: is no sound zip archive ({error}); remove it and run again to fetch it anew"
        ) from None
    except OSError as error:
        raise InputError(
            f"{archive}: cannot be unpacked ({error.strerror}); make room and run again"
        ) from None
    return {target: member.file_size for target, member in wanted.items()}


def _check(archive: Path, members: list[zipfile.ZipInfo], limit: int) -> None:
    for member in members:
        # Some unpackers take a backslash for a slash and C: for a drive; no name here needs either.
        path = PurePosixPath(member.filename.replace("\\", "/"))
        kind = stat.S_IFMT(member.external_attr >> 16)
        if path.is_absolute() or ".." in path.parts or ":" in member.filename:
            what = "leads outside the folder"
        elif kind not in (0, stat.S_IFREG):
            what = "is a link or a device"
        elif member.flag_bits & 0x1:
            what = "is locked with a password"
        else:
            continue
        raise InputError(f"{archive}: its member {member.filename!r} {what}; nothing was unpacked")
    total = sum(member.file_size for member in members)
    if total > limit:
        raise InputError(
            f"{archive}: says it unpacks to {total} bytes, expected at most {limit}; nothing was unpacked"
        )


def _check_room(archive: Path, folder: Path, needed: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise InputError(
            f"{folder}: {free / 1e9:.1f} GB are free, unpacking {archive.name} needs {needed / 1e9:.1f} GB; "
            "make room and run again"
        )
