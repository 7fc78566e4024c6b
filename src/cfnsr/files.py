"""Writing files whole or not at all, whatever their names and what stands in them."""

import codecs
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cfnsr.errors import InputError

ESCAPED = "cfnsr.escaped"  # how to encode what an encoding does not have: see `escaped`
BYTES = range(0xDC80, 0xDD00)  # what Python reads for bytes of a file's name that are no UTF-8
LONGEST_NAME = 200  # bytes
POINTER = b"version https://git-lfs.github.com/spec/"


def escaped(text: str) -> str:
    r"""Text that can be written: bytes of a file's name that are no text stand in it as escapes.

    >>> print(escaped("caf\udce9.mp4"), escaped("café.mp4"))
    caf\xe9.mp4 café.mp4
    """
    return text.encode("utf-8", ESCAPED).decode("utf-8")


def _escape(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    signs = (
        f"\\x{ord(sign) - 0xDC00:02x}" if ord(sign) in BYTES else sign.encode("unicode_escape").decode()
        for sign in error.object[error.start : error.end]
    )
    return "".join(signs), error.end


codecs.register_error(ESCAPED, _escape)


def is_pointer(path: Path) -> bool:
    """Whether a file is a Git LFS pointer, which stands where the file itself was not fetched."""
    try:
        with path.open("rb") as file:
            return file.read(len(POINTER)) == POINTER
    except OSError:
        return False


def told_pointer(path: Path) -> str:
    """What is said of a Git LFS pointer."""
    return (
        f"{path} is a Git LFS pointer, not the file itself: run `git lfs pull` in its repository, then the "
        "same command"
    )


def separator(header: str) -> str:
    """What separates the cells of a table's first line: what gives most; a space only as the last resort.

    >>> separator("path;split"), separator("file name,fold"), separator("path split")
    (';', ',', ' ')
    """
    counts = {each: header.strip().count(each) for each in ",;\t|"}
    best = max(counts, key=lambda each: counts[each])
    return best if counts[best] else " "


def shortened(name: str) -> str:
    """A file's name with room for an addition: no file system takes more than 255 bytes.

    >>> shortened("talk.mp4"), len(shortened("é" * 120).encode())
    ('talk.mp4', 100)
    """
    return name if len(os.fsencode(name)) <= LONGEST_NAME else name[:50]


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file in the same folder, then rename it: nobody sees half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{shortened(path.name)}.{os.getpid()}.tmp")
    try:
        write(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all; what UTF-8 cannot hold, as an escape."""
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8", errors=ESCAPED))


def write_json(path: Path, value: object) -> None:
    """Write JSON whole or not at all."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def read_json(path: Path, what: str) -> dict[str, Any]:
    """Read a JSON object; `what` names it in the error for a file that is missing or is none."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path} is missing: expected {what}") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"{path} cannot be read ({error}): expected {what}") from None
    if not isinstance(value, dict):
        raise InputError(f"{path} holds no JSON object: expected {what}")
    return value
