"""The index of a store: what the headers of its clips say, in one file, so that nobody need open them all.

It is a cache: a row counts while its clip file has the size and the time of change of when it was read. Never
changed in place, a new one takes its place: readers need no lock, and a kill leaves the one before. It holds
its own checksum, by which any damage is noticed, and whoever adds to it begins anew; only the quick listing
does not look at that, and takes what it cannot make sense of for an empty one.
"""

import errno
import gc
import json
import shutil
import sqlite3
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeAlias

from cfnsr.corpus.take import Actor
from cfnsr.files import is_remote, write_atomically

VERSION = 1
SCHEMA = f"""
CREATE TABLE preparations (id INTEGER PRIMARY KEY, json TEXT UNIQUE);
CREATE TABLE clips (file TEXT PRIMARY KEY, bytes INTEGER, changed, name TEXT, emotion TEXT, actor,
                    preparation INTEGER, rest TEXT);
CREATE INDEX listing ON clips (name, emotion, actor);
CREATE TABLE folders (folder TEXT PRIMARY KEY, mtime_ns INTEGER);
PRAGMA user_version = {VERSION};
"""
CHECKSUM = 68  # where SQLite keeps an "application id" of four bytes, of which it makes no use
CHUNK = 1 << 20  # bytes
READERS = 16  # clips that are read at a time: object storage answers late
LEAST = 1_000  # rows that are worth a new file; at least a tenth, so that all writing is linear

Stamp: TypeAlias = tuple[int, int | str]  # size in bytes; time of change in ns, or object storage's ETag
Described: TypeAlias = dict[str, Any]  # a header as JSON
ODD = (sqlite3.Error, ValueError, KeyError, TypeError, RecursionError)  # what comes of a damaged file


class Listed(NamedTuple):
    """A clip in the listing of a store."""

    name: str
    emotion: str
    actor: Actor


class Index:
    """An index, open for reading, and for writing by the one process that has the store's lock.

    Args:
        path: of its file; one that is missing, damaged or of another version is as an empty one.
        whole: check all of it by its checksum, for it will be added to, or all headers be read.
    """

    def __init__(self, path: Path, *, whole: bool = False) -> None:
        self._path = path
        self._new: list[tuple[str, Stamp, Described]] = []
        self._rows = 0
        self._scratch = TemporaryDirectory() if is_remote(path) else None
        self._local = Path(self._scratch.name) / path.name if self._scratch else path
        if self._scratch:
            with suppress(OSError), path.open("rb") as file, self._local.open("wb") as copy:
                shutil.copyfileobj(file, copy)
        self._open(whole)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._connection:
            self._connection.close()
        if self._scratch:
            self._scratch.cleanup()

    def _open(self, whole: bool) -> None:
        self._connection: sqlite3.Connection | None = None
        self._preparations = dict[int, Described]()
        with suppress(*ODD, OSError):
            if whole and _checksum(self._local) != _kept_checksum(self._local):
                return
            url = f"{self._local.absolute().as_uri()}?mode=ro&immutable=1"
            connection = sqlite3.connect(url, uri=True)
            if connection.execute("PRAGMA user_version").fetchone() == (VERSION,):
                if whole:
                    (self._rows,) = connection.execute("SELECT count(*) FROM clips").fetchone()
                shared = connection.execute("SELECT id, json FROM preparations")
                self._preparations = {number: json.loads(text) for number, text in shared}
                self._connection = connection

    def _select(self, query: str, *values: object) -> Iterable[tuple[Any, ...]]:
        """Rows of a query, as far as they can be read."""
        with suppress(sqlite3.Error):
            if self._connection:
                yield from self._connection.execute(query, values)

    def entries(self, folders: Mapping[str, int]) -> list[Listed]:
        """Listing sorted by name; empty where the folders of the clips have changed since."""
        if not self._connection or not folders or self._folders() != folders:
            return []
        try:
            with collector_paused():
                listed = self._connection.execute("SELECT name, emotion, actor FROM clips ORDER BY name")
                entries = list(map(Listed._make, listed))
        except ODD:
            return []
        return entries if all(map(_is_sound, entries)) else []

    def _folders(self) -> dict[str, int]:
        return dict(self._select("SELECT folder, mtime_ns FROM folders"))

    def headers(self, stamps: Mapping[str, Stamp], file: str | None = None) -> dict[str, Described]:
        """Headers of the clip files that are as they were read, or of one of them."""
        one, values = ("", ()) if file is None else (" WHERE file = ?", (file,))
        query = f"SELECT file, bytes, changed, preparation, rest FROM clips{one}"  # noqa: S608
        found = {}
        for name, size, changed, preparation, rest in self._select(query, *values):
            if stamps.get(name) == (size, changed):
                with suppress(*ODD):
                    found[name] = {**json.loads(rest), "preparation": self._preparations[preparation]}
        return found

    def put(self, file: str, stamp: Stamp, header: Described) -> bool:
        """Take up a clip file that was read or written; false for one of a name that is no text."""
        try:
            f"{file}{header['name']}{header['emotion']}{header['actor']}".encode()
        except UnicodeEncodeError:
            return False
        self._new.append((file, stamp, header))
        if len(self._new) >= max(LEAST, self._rows // 10):
            self.save()
        return True

    def update(
        self,
        stamps: Mapping[str, Stamp],
        read: Callable[[str], Described | None],
        folders: Mapping[str, int],
    ) -> None:
        """Bring it up to date with all clip files there are, reading those that it has not as they are.

        Args:
            stamps: of all clip files.
            read: gives the header of a clip file; None for a damaged one.
            folders: that hold them, with their times of change before `stamps` were read.
        """
        query = "SELECT file, bytes, changed FROM clips"
        there: dict[str, Stamp] = {file: (size, changed) for file, size, changed in self._select(query)}
        there |= {file: stamp for file, stamp, _ in self._new}
        lacking = [file for file, stamp in stamps.items() if there.get(file) != stamp]
        gone = there.keys() - stamps.keys()
        complete = True
        with ThreadPoolExecutor(READERS) as pool:
            for file, header in zip(lacking, pool.map(read, lacking), strict=True):
                complete &= header is not None and self.put(file, stamps[file], header)
        marks = folders if complete else {}
        if self._new or gone or self._folders() != marks:
            self.save(gone, marks)

    def save(self, gone: Iterable[str] = (), folders: Mapping[str, int] | None = None) -> None:
        """Write it anew with what was put, without the files that are gone."""

        def write(temporary: Path) -> None:
            temporary.touch()
            if self._connection:
                shutil.copyfile(self._local, temporary)
            with closing(sqlite3.connect(temporary, isolation_level=None)) as connection:
                connection.execute("PRAGMA journal_mode = OFF")  # nobody sees it before it is whole
                connection.execute("PRAGMA synchronous = OFF")
                if not self._connection:
                    connection.executescript(SCHEMA)
                connection.execute("BEGIN")
                connection.execute("DELETE FROM folders")
                connection.executemany("DELETE FROM clips WHERE file = ?", ((file,) for file in gone))
                for row in self._new:
                    _insert(connection, *row)
                connection.executemany("INSERT INTO folders VALUES (?, ?)", (folders or {}).items())
                connection.execute("COMMIT")
            checksum = _checksum(temporary)
            with temporary.open("r+b") as file:
                file.seek(CHECKSUM)
                file.write(checksum)

        try:
            write_atomically(self._local, write)
        except sqlite3.Error as error:
            full = getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_FULL  # its own errors have none
            raise OSError(errno.ENOSPC if full else errno.EIO, str(error), str(self._path)) from None
        if self._connection:
            self._connection.close()
        if self._scratch:
            with self._local.open("rb") as file, self._path.open("wb") as remote:
                shutil.copyfileobj(file, remote)
        self._rows += len(self._new)
        self._new.clear()
        self._open(whole=False)


@contextmanager
def collector_paused() -> Iterator[None]:
    """While many objects are made that stay: the collector would walk over them again and again."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _is_sound(entry: Listed) -> bool:
    return (
        isinstance(entry.name, str) and isinstance(entry.emotion, str) and isinstance(entry.actor, (str, int))
    )


def _checksum(path: Path) -> bytes:
    """Compute the checksum of all of a file but the place that keeps it."""
    with path.open("rb") as file:
        found = zlib.crc32(file.read(CHECKSUM))
        file.seek(CHECKSUM + 4)
        while chunk := file.read(CHUNK):
            found = zlib.crc32(chunk, found)
    return found.to_bytes(4, "big")


def _kept_checksum(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(CHECKSUM)
        return file.read(4)


def _insert(connection: sqlite3.Connection, file: str, stamp: Stamp, header: Described) -> None:
    rest = dict(header)
    preparation = json.dumps(rest.pop("preparation"))
    connection.execute("INSERT OR IGNORE INTO preparations (json) VALUES (?)", (preparation,))
    values = (file, *stamp, header["name"], header["emotion"], header["actor"], preparation, json.dumps(rest))
    connection.execute(
        "REPLACE INTO clips VALUES (?, ?, ?, ?, ?, ?, (SELECT id FROM preparations WHERE json = ?), ?)",
        values,
    )
