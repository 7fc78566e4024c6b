"""Files of a Zenodo record: list them, and fetch one whole and checked, however often the line is cut.

pooch compares the checksums. Its own downloaders do not resume, and its DOI look-up knows zenodo.org alone
and no sizes, so the requests are made here.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from cfnsr.errors import InputError

if TYPE_CHECKING:
    import requests

ZENODO = "https://zenodo.org"

ATTEMPTS = 5  # in a row without progress
PROGRESS = 1 << 20  # bytes that count as progress
TIMEOUT = (10.0, 60.0)  # seconds to connect, seconds without a byte
PASSING = (408, 425, 429, 500, 502, 503, 504)  # status codes after which to ask again
CHUNK = 1 << 16  # bytes; a cut loses the one under way

Progress = Callable[[str, int, int], None]
"""Called with the name of what is under way, how many bytes of it are done, and how many it has."""


@dataclass(frozen=True)
class RemoteFile:
    """One file of a record, as Zenodo describes it; its size is in bytes."""

    name: str
    size: int
    md5: str
    url: str


def list_files(record: int, base_url: str = ZENODO) -> dict[str, RemoteFile]:
    """The files of a record by name, from Zenodo's REST API.

    Raises:
        InputError: no connection, no such record, or an answer of another shape.
    """
    url = f"{base_url.rstrip('/')}/api/records/{record}"
    found: dict[str, RemoteFile] = {}
    with _opened(url, Accept="application/json") as response:
        try:
            files = response.json()["files"]
            if isinstance(files, dict):  # as InvenioRDM writes them, the software behind Zenodo
                files = files["entries"].values()
            for file in files:
                name, size, md5 = file["key"], int(file["size"]), file["checksum"].removeprefix("md5:")
                if len(bytes.fromhex(md5)) != 16:
                    raise ValueError(md5)
                found[name] = RemoteFile(name, size, md5, f"{url}/files/{quote(name)}/content")
        except (KeyError, TypeError, ValueError, AttributeError):
            raise InputError(
                f"{url}: expected JSON that lists files with key, size and md5 checksum, got something else; "
                f"get the archives by hand from https://doi.org/10.5281/zenodo.{record}"
            ) from None
    return found


def fetch(file: RemoteFile, folder: Path, progress: Progress) -> Path:
    """Fetch a file into a folder and check it; one that is there and right is not fetched again.

    Bytes gather in `name.part`, which a later call continues. Only a file with the right checksum ever
    has its own name. That name is one that `plan_download` looked for, so it leads nowhere else.

    Raises:
        InputError: the server stays away, lies about the size, or sent a file with a wrong checksum
            (which is removed).
    """
    from pooch import file_hash

    path, part = folder / file.name, folder / f"{file.name}.part"
    folder.mkdir(parents=True, exist_ok=True)
    if path.is_file() and file_hash(path, "md5") == file.md5:
        return path
    failures, furthest = 0, _size(part)
    while (have := _size(part)) != file.size:
        if have >= furthest + PROGRESS:
            failures = 0
        furthest = max(furthest, have)
        if failures == ATTEMPTS:
            cut = f"{file.name}: the connection was cut {failures} times in a row"
            kept = f"the {have} of {file.size} bytes that came are kept"
            raise InputError(f"{cut}; check it and run again: {kept}")
        if failures:
            time.sleep(2.0 ** (failures - 1))
        _continue(file, part, have if have < file.size else 0, progress)
        failures += 1
    if file_hash(part, "md5") != file.md5:
        part.unlink()
        raise InputError(
            f"{file.name}: what was fetched has not the checksum Zenodo states and was removed; run again"
        )
    return part.replace(path)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _continue(file: RemoteFile, part: Path, have: int, progress: Progress) -> None:
    """Ask once for what is missing, and keep what comes."""
    from requests import RequestException

    # Ranges count the bytes of the file itself, so it must come as it is.
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with _opened(file.url, **headers) as response:
        if response.status_code == 200:
            have = 0
        elif response.headers.get("Content-Range") != f"bytes {have}-{file.size - 1}/{file.size}":
            part.unlink()  # a server that does not continue where it was asked to: from the beginning
            return
        length = response.headers.get("Content-Length", "")
        if length.isdecimal() and int(length) != file.size - have:
            offers = f"the server offers {length} bytes where Zenodo's record states {file.size - have}"
            raise InputError(f"{file.name}: {offers}; check for a proxy, run again later")
        with part.open("ab" if have else "wb") as sink, suppress(RequestException):  # the line is cut
            for chunk in response.iter_content(CHUNK):
                have += sink.write(chunk[: file.size - have])
                progress(file.name, have, file.size)
                if have == file.size:
                    break


@contextmanager
def _opened(url: str, **headers: str) -> Iterator["requests.Response"]:
    """Ask for an address, again where a failure may pass, with the pauses that the server asks for.

    Raises:
        InputError: no answer with status 200, 206 or 416.
    """
    import requests
    from urllib3.util import Retry

    retry = Retry(ATTEMPTS - 1, backoff_factor=1, status_forcelist=PASSING, raise_on_status=False)
    with requests.Session() as session:
        for scheme in ("https://", "http://"):
            session.mount(scheme, requests.adapters.HTTPAdapter(max_retries=retry))
        try:
            asked = {"User-Agent": "cfnsr", **headers}
            with session.get(url, headers=asked, stream=True, timeout=TIMEOUT) as response:
                if response.status_code not in (200, 206, 416):
                    again = "run again later" if response.status_code in PASSING else "check the address"
                    answer = f"{response.status_code} {response.reason}"
                    raise InputError(f"{url}: the server answers {answer}; {again}")
                yield response
        except requests.exceptions.RequestException as error:
            if isinstance(error, ValueError):  # InvalidURL, MissingSchema, InvalidSchema
                raise InputError(f"{url}: expected an address that starts with https://") from None
            said = f"no answer ({type(error).__name__})"
            raise InputError(f"{url}: {said}; check the connection and run again") from None
