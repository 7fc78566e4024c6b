"""Files written whole or not at all, fetched once, and tables read, whatever their names and contents."""

import codecs
import csv
import errno
import hashlib
import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from typing import IO, TYPE_CHECKING, Any, cast

from cfnsr.errors import InputError, require

if TYPE_CHECKING:
    from _csv import Reader

ESCAPED = "cfnsr.escaped"  # handler of what an encoding does not have: see `escaped`
BYTES = range(0xDC80, 0xDD00)  # Python's stand-ins for bytes of a file's name that are no UTF-8
LONGEST_NAME = 200  # bytes
LONGEST_HEADER = 1 << 20  # characters
FORMULA = ("=", "+", "-", "@", "\t", "\r", "'")  # how text begins that a spreadsheet would compute
LARGEST_JSON = 256 << 20  # bytes
LOCK = ".lock"  # of a folder that is being written
TEMPORARY = ".cfnsr.tmp"  # ends the name of a file that is being written
FULL = (errno.ENOSPC, errno.EDQUOT)  # errors of a disk
POINTER = b"version https://git-lfs.github.com/spec/"


def escaped(text: str) -> str:
    r"""Make text writable: bytes of a file's name that are no text become escapes.

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


def visible(text: str) -> str:
    """Escape what a table or a file's name may hold and a terminal would obey or hide.

    A message so written is one line.

    >>> print(visible("Zoë\\x1b[2J \\u202egpj.exe"), visible("a\\n caf\\udce9.mp4"))
    Zoë\\x1b[2J \\u202egpj.exe a\\n caf\\xe9.mp4
    """
    if text.isprintable():
        return text
    shown = (char if char.isprintable() else char.encode("unicode_escape").decode() for char in escaped(text))
    return "".join(shown)


def to_csv(rows: Iterable[Sequence[object]]) -> str:
    r"""Write rows as CSV with lines that end in a line feed alone.

    Text that a spreadsheet would take for a formula gets a quote before it; numbers are no such text.

    >>> to_csv([["clip", "label"], ["=cmd()", "-1.5"]])
    "clip,label\n'=cmd(),-1.5\n"
    """
    lines: list[str] = []
    # The writer puts a carriage return in quotes where its own lines end in one.
    sink = SimpleNamespace(write=lambda line: lines.append(line.removesuffix("\r\n") + "\n"))
    csv.writer(sink).writerows([_to_cell(cell) for cell in row] for row in rows)
    return "".join(lines)


def _to_cell(value: object) -> object:
    if not isinstance(value, str) or not value.startswith(FORMULA):
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value


def from_cell(text: str) -> str:
    """Read text that `to_csv` wrote.

    >>> from_cell("'=cmd()"), from_cell("it's"), from_cell("''t")
    ('=cmd()', "it's", "'t")
    """
    return text[1:] if text.startswith("'") and text[1:].startswith(FORMULA) else text


def is_pointer(path: Path) -> bool:
    """Look for a Git LFS pointer, which stands where the file itself was not fetched."""
    try:
        with path.open("rb") as file:
            return file.read(len(POINTER)) == POINTER
    except OSError:
        return False


def pointer_message(path: Path) -> str:
    """Message about a Git LFS pointer."""
    return (
        f"{path} is a Git LFS pointer, not the file itself: run `git lfs pull` in its repository, then the "
        "same command"
    )


def refuse_pointer(path: Path) -> None:
    """Raise `InputError` for a Git LFS pointer."""
    if is_pointer(path):
        raise InputError(pointer_message(path))


def read_bytes(path: Path) -> bytes:
    """Read all of a file.

    Raises:
        InputError: it is a Git LFS pointer.
        OSError: it cannot be read.
    """
    refuse_pointer(path)
    return path.read_bytes()


def separator(header: str) -> str:
    """Find the separator of a table's first line: the one that gives most cells; a space as the last resort.

    >>> separator("path;split"), separator("file name,fold"), separator("path split")
    (';', ',', ' ')
    """
    counts = {each: header.strip().count(each) for each in ",;\t|"}
    best = max(counts, key=lambda each: counts[each])
    return best if counts[best] else " "


@dataclass(frozen=True, eq=False)
class Table:
    """A table that is being read, past its header."""

    path: Path
    header: list[str]
    separator: str
    lines: Iterator[str]
    reader: "Reader"

    def rows(self) -> Iterator[tuple[int, list[str]]]:
        """Yield line number (the header's is 1) and cells of every row that is not blank.

        Raises:
            InputError: a row has fewer cells than the header, or more that are not empty.
        """
        width = len(self.header)
        for row in self.reader:
            cells = [cell.strip() for cell in row]
            if not any(cells):
                continue
            few = len(cells) < width
            if few or any(cells[width:]):
                mend = "add what is missing" if few else "put cells with the separator in quotes"
                raise InputError(
                    f"{self.path} line {self.reader.line_num}: has {len(cells)} cells where the header has "
                    f"{width}; {mend}"
                )
            yield self.reader.line_num, cells[:width]


@contextmanager
def open_table(path: Path, expected: str) -> Iterator[Table]:
    """Open a table as people have them.

    Cells are separated by commas, semicolons, tabs, bars or spaces, or as Excel's `sep=;` says; text is
    UTF-8 or UTF-16 with a mark of byte order. Bytes that are no text are kept as in names of files.

    Args:
        expected: what a refusal asks for.

    Raises:
        InputError: no table, or one that cannot be read.
    """
    if not path.is_file():
        what = "is no file" if path.exists() else "does not exist"
        raise InputError(f"{path} {what}: {expected}; check the path")
    refuse_pointer(path)
    try:
        with path.open("rb") as binary:
            wide = binary.read(2) in (b"\xff\xfe", b"\xfe\xff")  # as spreadsheets save "Unicode text"
        encoding = "utf-16" if wide else "utf-8-sig"
        with path.open(newline="", encoding=encoding, errors="surrogateescape") as file:
            first = [file.readline(LONGEST_HEADER)]
            named = re.fullmatch(r'"?sep=(.)"?\s*', first[0], re.IGNORECASE)
            if named:
                first.append(file.readline(LONGEST_HEADER))
            if not first[-1].strip():
                raise InputError(f"{path} is empty where its header should be: {expected}; save it again")
            if "\0" in first[-1]:
                raise InputError(f"{path} is no text, perhaps a workbook: {expected}; save it as CSV")
            between = named[1] if named else separator(first[0])
            lines = chain(first, file)
            reader = csv.reader(lines, delimiter=between, strict=True, skipinitialspace=between == " ")
            header = [next(reader) for _ in first][-1]
            yield Table(path, [cell.strip() for cell in header], between, lines, reader)
    except (OSError, UnicodeError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read as a table ({error}); {expected}, in UTF-8") from None


def shortened(name: str) -> str:
    """Shorten a file's name to leave room for an addition: no file system takes more than 255 bytes.

    >>> shortened("talk.mp4"), len(shortened("é" * 120).encode())
    ('talk.mp4', 100)
    """
    return name if len(os.fsencode(name)) <= LONGEST_NAME else name[:50]


def place(name: str) -> Path:
    """Path of a folder: on the disk, or on object storage, such as `s3://bucket/folder`, as a `UPath`.

    Raises:
        InputError: a protocol without its package, or a place that does not answer.
    """
    if "://" not in name:
        return Path(name)
    require("ray", "upath")
    from upath import UPath

    try:
        found = UPath(name)
        found.exists()
    except ImportError as error:
        raise InputError(f"{name} cannot be opened: {error}, then the same command") from None
    except Exception as error:  # each protocol's package raises its own
        raise InputError(
            f"{name} cannot be reached ({type(error).__name__}: {' '.join(str(error).split())}): check the "
            "name, the network and the credentials"
        ) from None
    return cast(Path, found)


def is_remote(path: Path) -> bool:
    """Look if a path leads to object storage, where files are written whole, and nothing is locked."""
    return not isinstance(path, Path)


def lock(file: IO[Any], written: Path) -> None:
    """Lock an open file for this process, until it is closed.

    Args:
        written: that the file stands for, in the message.

    Raises:
        InputError: another process has locked it.
    """
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # a fork, as of a data loader, has it not
    except (BlockingIOError, PermissionError):
        raise InputError(
            f"{written} is being written by another cfnsr: expected to be the only one; wait until that "
            "has ended, then run the same command again"
        ) from None


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Write a folder alone; the system drops the lock when this process ends, however it ends.

    What a killed process had half written is deleted.

    Raises:
        InputError: another process writes it.
    """
    if is_remote(folder):
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("a+") as file:
        lock(file, folder)
        file.seek(0)
        if file.read():
            for left in folder.rglob(f".*{TEMPORARY}"):
                left.unlink(missing_ok=True)
        file.truncate(0)
        file.write(f"{os.getpid()}\n")  # until a good end: so the next one knows
        file.flush()
        yield
        file.truncate(0)


def check_folder(out: Path) -> None:
    """Refuse a file where a folder is to be written."""
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file: expected a folder, or a name for a new one")


def check_file(out: Path) -> None:
    """Refuse, before any work, a place where no file can be written."""
    if out.is_dir():
        raise InputError(f"{out} is a folder: expected the name of a file to write")
    above = next(folder for folder in out.absolute().parents if folder.exists())
    if not above.is_dir():
        raise InputError(f"{out} cannot be written, for {above} is a file: give another name")
    if not os.access(above, os.W_OK):
        raise InputError(f"{out} cannot be written: no permission to write {above}; give another folder")


def write_atomically(path: Path, write: Callable[[Path], object], *, alone: bool = False) -> None:
    """Let `write` fill a temporary file in the same folder, then rename it: nobody sees half a file.

    Args:
        alone: no other process writes this file, so that a second try overwrites what a killed one left.
    """
    if is_remote(path):  # one PUT, which is whole or not at all
        write(path)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    mark = "" if alone else f".{os.getpid()}"
    temporary = path.with_name(f".{shortened(path.name)}{mark}{TEMPORARY}")
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


def read_json(path: Path, what: str, largest: int = LARGEST_JSON) -> dict[str, Any]:
    """Read a JSON object.

    Args:
        what: it is, in the error for a file that is missing or is none.
        largest: bytes that it may have.
    """
    try:
        size = path.stat().st_size
        if not path.is_dir() and not path.is_file():
            raise InputError(f"{path} is no file: expected {what}")
        if size > largest:
            raise InputError(f"{path} has {size:,} bytes: expected at most {largest:,} of {what}")
        value = json.loads(read_bytes(path).decode("utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path} is missing: expected {what}") from None
    except InputError:
        raise
    except (OSError, ValueError, RecursionError) as error:  # JSON may be nested beyond all bounds
        raise InputError(f"{path} cannot be read ({error}): expected {what}") from None
    if not isinstance(value, dict):
        raise InputError(f"{path} holds no JSON object: expected {what}")
    return value


def cache() -> Path:
    """Find the folder that keeps what was fetched."""
    import pooch

    return Path(pooch.os_cache("cfnsr"))


def find_fetched(url: str, sha256: str) -> Path | None:
    """Find the file of a URL that was fetched before; None where there is none with this SHA-256."""
    kept = cache() / url.rsplit("/", 1)[1]
    try:
        return kept if hashlib.sha256(kept.read_bytes()).hexdigest() == sha256 else None
    except OSError:
        return None


def fetch(urls: Sequence[str], sha256: str, what: str, otherwise: str) -> Path:
    """Fetch a file once, from the first of some URLs that has it, and check it.

    Args:
        urls: of one file; the name of the first is the name it is kept by.
        what: the file is, in an error.
        otherwise: what to do without a network.

    Raises:
        InputError: none of them gives it.
    """
    import pooch

    failed = []
    pooch.get_logger().setLevel("ERROR")  # failures are reported below
    for url in urls:
        name = urls[0].rsplit("/", 1)[1]
        try:
            return Path(pooch.retrieve(url, known_hash=f"sha256:{sha256}", fname=name, path=cache()))
        except Exception as error:  # requests, urllib3, pooch and the file system each raise their own
            failed.append(type(error).__name__)
    raise InputError(
        f"{what} cannot be fetched ({', '.join(dict.fromkeys(failed))}): expected {urls[0]}; {otherwise}; "
        "`cfnsr doctor` shows what is there"
    )
