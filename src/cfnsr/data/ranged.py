"""Clip files on object storage, read in parts."""

import json
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load

WORD = 8  # bytes of the header's length
LONGEST_HEADER = 100_000_000  # bytes; that of safetensors itself
VERSIONS = ("ETag", "etag", "mtime", "created")  # of a file, as s3fs, gcsfs and fsspec's own name them


class RangedClip:
    """A safetensors file of which only the header and the tensors asked for are read, as `safe_open` does.

    Args:
        path: a `UPath`.

    Raises:
        SafetensorError: it is none.
        OSError: it cannot be read.
    """

    def __init__(self, path: Any) -> None:
        self._path = path
        size = int.from_bytes(self._read(0, WORD), "little")
        if size > LONGEST_HEADER:
            raise SafetensorError(f"a header of {size} bytes")
        self._begin = WORD + size
        try:
            self._described = json.loads(self._read(WORD, self._begin))
            self._metadata = dict(self._described.pop("__metadata__", {}))
        except (ValueError, TypeError, AttributeError) as error:
            raise SafetensorError(f"no safetensors header: {error}") from None

    def _read(self, start: int, end: int) -> bytes:
        return bytes(file_system(self._path).cat_file(self._path.path, start=start, end=end))

    def metadata(self) -> dict[str, Any]:
        return self._metadata

    def keys(self) -> list[str]:
        return list(self._described)

    def get_tensor(self, name: str) -> np.ndarray:
        described = self._described[name]
        start, end = described["data_offsets"]
        alone = json.dumps({name: {**described, "data_offsets": [0, end - start]}}).encode()
        data = self._read(self._begin + start, self._begin + end) if end > start else b""
        return load(len(alone).to_bytes(WORD, "little") + alone + data)[name]


def file_system(path: Any) -> Any:
    """File system of a `UPath`, of this process: one from before a fork does not work."""
    import fsspec

    return fsspec.filesystem(path.protocol, **path.storage_options)


def stamps(path: Any) -> dict[str, tuple[int, int | str]]:
    """Size and version of every file below a `UPath`, or of that file, by its path below it."""
    found = file_system(path).find(path.path, detail=True)
    base = path.path.rstrip("/") + "/"
    return {
        name.removeprefix(base): (
            int(about["size"]),
            str(next((about[key] for key in VERSIONS if key in about), "")),
        )
        for name, about in found.items()
    }
