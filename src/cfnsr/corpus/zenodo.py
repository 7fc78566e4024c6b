"""Files of a Zenodo record: what there is, and fetching one whole, checked, however often the line is cut."""

import logging
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from cfnsr.errors import InputError

if TYPE_CHECKING:
    import requests

ZENODO = "https://zenodo.org"

ATTEMPTS = 5  # in a row without progress
PROGRESS = 1 << 20  # bytes that count as progress
LONGEST_PAUSE = 60.0  # seconds
TIMEOUT = (10.0, 60.0)  # seconds to connect, seconds without a byte
CHUNK = 1 << 16  # bytes; a cut loses the one under way

Progress = Callable[[str, int, int], None]
"""Called with what is under way, how many bytes of it are done, and how many it has."""


@dataclass(frozen=True)
class RemoteFile:
    """One file of a record, as Zenodo describes it.

    Args:
        size: in bytes.
        md5: 32 hexadecimal digits.
    """

    name: str
    size: int
    md5: str
    url: str


class _PassingError(Exception):
    """A failure that may pass, and how many seconds the server asks to wait."""

    def __init__(self, reason: str, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.wait = wait


def list_files(
    record: int, *, base_url: str = ZENODO, pause: Callable[[float], None] = time.sleep
) -> dict[str, RemoteFile]:
    """The files of a record by name, from Zenodo's REST API in its legacy or its present shape.

    Raises:
        InputError: no connection, no such record, or an answer of another shape.
    """
    url = f"{base_url.rstrip('/')}/api/records/{record}"
    by_hand = f"get the archives by hand from https://doi.org/10.5281/zenodo.{record}"
    for attempt in range(1, ATTEMPTS + 1):
        try:
            with _opened(url, {"Accept": "application/json"}) as response:
                answer = response.json()
            break
        except _PassingError as error:
            if attempt == ATTEMPTS:
                raise InputError(
                    f"{url}: {error}, {ATTEMPTS} times; check the connection, run again later, or {by_hand}"
                ) from None
            pause(_wait(attempt, error))
        except ValueError as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{url}: expected JSON from Zenodo, got something else; {by_hand}") from None
    try:
        return {file.name: file for file in _described(answer, f"{url}/files")}
    except (KeyError, TypeError, ValueError, AttributeError):
        raise InputError(
            f"{url}: expected files with key, size and md5 checksum, Zenodo's answer has changed; {by_hand}"
        ) from None


def _described(answer: Any, files_url: str) -> Iterator[RemoteFile]:
    files = answer["files"]
    if isinstance(files, dict):
        files = files["entries"]
    if isinstance(files, dict):
        files = list(files.values())
    for file in files:
        name = file["key"] if "key" in file else file["filename"]
        size = file["size"] if "size" in file else file["filesize"]
        md5 = re.fullmatch(r"(?:md5:)?([0-9a-f]{32})", file["checksum"])
        links = file.get("links") or {}
        url = links.get("content") or links.get("download") or links.get("self")
        if md5 is None or not isinstance(name, str) or not isinstance(size, int) or size < 0:
            raise ValueError
        yield RemoteFile(name, size, md5[1], url or f"{files_url}/{quote(name)}/content")


def fetch(
    file: RemoteFile, folder: Path, *, progress: Progress, pause: Callable[[float], None] = time.sleep
) -> Path:
    """Fetch a file into a folder and check it; one that is there and right is not fetched again.

    Bytes gather in `name.part`, which a later call continues. Only a file with the right checksum ever
    has its own name.

    Raises:
        InputError: the server stays away, lies about the size, or sent a file with a wrong checksum
            (which is removed).
    """
    import pooch

    pooch.get_logger().setLevel(logging.WARNING)
    if file.name != Path(file.name).name or file.name.startswith("."):
        raise InputError(f"file name {file.name!r} from Zenodo: expected a plain name; nothing was fetched")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return Path(
            pooch.retrieve(
                file.url,
                known_hash=f"md5:{file.md5}",
                fname=file.name,
                path=folder,
                downloader=_Resuming(file, folder / f"{file.name}.part", progress, pause),
            )
        )
    except OSError as error:
        raise InputError(
            f"{folder / file.name}: cannot be written ({error.strerror}); make room or choose another "
            "folder, then run again: what was fetched is kept"
        ) from None
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{file.name}: what was fetched has not the checksum Zenodo states and was removed; run again"
        ) from None


@dataclass
class _Resuming:
    """A downloader for pooch that continues `part` after a cut, a bounded number of times."""

    file: RemoteFile
    part: Path
    progress: Progress
    pause: Callable[[float], None]
    use_ranges: bool = True

    def __call__(self, url: str, output_file: str, pooch: object, check_only: bool = False) -> None:
        if self._have() > self.file.size:
            self.part.unlink()
        failures, furthest = 0, self._have()
        while self._have() < self.file.size or not self.part.exists():
            try:
                self._continue(url, self._have())
            except _PassingError as error:
                have = self._have()
                failures = 1 if have >= furthest + PROGRESS else failures + 1
                furthest = max(furthest, have)
                if failures >= ATTEMPTS:
                    raise InputError(
                        f"{self.file.name}: {error}, {failures} times in a row; check the connection and run "
                        f"again: the {have} of {self.file.size} bytes that came are kept"
                    ) from None
                self.pause(_wait(failures, error))
        self.part.replace(output_file)

    def _have(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    def _continue(self, url: str, have: int) -> None:
        """One request for what is missing, written as it comes."""
        # Ranges count the bytes of the file itself, so it must come as it is.
        headers = {"Accept-Encoding": "identity"}
        if have and self.use_ranges:
            headers["Range"] = f"bytes={have}-"
        with _opened(url, headers) as response:
            start = self._start(response, have)
            length = response.headers.get("Content-Length", "")
            if length.isdecimal() and int(length) != self.file.size - start:
                raise InputError(
                    f"{self.file.name}: the server offers {int(length)} bytes where Zenodo's record states "
                    f"{self.file.size - start}; check for a proxy, run again later"
                )
            done = start
            with self.part.open("ab" if start else "wb") as sink:
                for chunk in response.iter_content(CHUNK):
                    done += len(chunk)
                    if done > self.file.size:
                        break
                    sink.write(chunk)
                    self.progress(self.file.name, done, self.file.size)
        if done > self.file.size:
            self.part.unlink()
            raise InputError(
                f"{self.file.name}: more came than the {self.file.size} bytes of Zenodo's record; "
                "it was removed: run again later"
            )
        if done < self.file.size:
            raise _PassingError("the connection was cut")

    def _start(self, response: "requests.Response", have: int) -> int:
        """Where the body of an answer starts in the file: at `have`, or at 0 from a server without ranges."""
        if response.status_code == 200:
            return 0
        if response.headers.get("Content-Range") == f"bytes {have}-{self.file.size - 1}/{self.file.size}":
            return have
        self.use_ranges = False
        raise _PassingError("the server does not continue where it was asked to")


def _wait(failures: int, error: _PassingError) -> float:
    return min(max(error.wait, 2.0 ** (failures - 1)), LONGEST_PAUSE)


@contextmanager
def _opened(url: str, headers: Mapping[str, str]) -> Iterator["requests.Response"]:
    """An answer with status 200, 206 or 416; else `_PassingError` for what may pass, or `InputError`."""
    import requests

    try:
        with requests.get(
            url, headers={"User-Agent": "cfnsr", **headers}, stream=True, timeout=TIMEOUT
        ) as response:
            status = response.status_code
            if status in (408, 425, 429) or status >= 500:
                wait = response.headers.get("Retry-After", "")
                raise _PassingError(f"the server answers {status}", float(wait) if wait.isdecimal() else 0.0)
            if status not in (200, 206, 416):
                raise InputError(
                    f"{url}: the server answers {status} {response.reason}; see whether it still exists"
                )
            yield response
    except requests.exceptions.JSONDecodeError:
        raise
    except (
        requests.exceptions.InvalidURL,
        requests.exceptions.InvalidSchema,
        requests.exceptions.MissingSchema,
    ):
        raise InputError(f"{url}: expected an address that starts with https://") from None
    except requests.exceptions.Timeout:
        raise _PassingError("no answer in time") from None
    except requests.exceptions.SSLError:
        raise _PassingError("the server's certificate is not accepted") from None
    except requests.exceptions.ChunkedEncodingError:
        raise _PassingError("the connection was cut") from None
    except requests.exceptions.ConnectionError:
        raise _PassingError("no connection") from None
    except requests.exceptions.RequestException as error:
        raise _PassingError(type(error).__name__) from None
