"""A checksum at the end of an exported file, by which a damaged file is recognised.

Neither format has one of its own: a few missing or changed bytes of the weights would go unnoticed, and
every answer be a little wrong. It proves that a file is whole, not who wrote it.
"""

from hashlib import sha256

from cfnsr.errors import InputError

KEY = b"cfnsr_sha256"
# Bytes before and after the digits, by suffix. Of ONNX they are an entry of `metadata_props`, field 14 of its
# protocol buffer, whose value has 64 bytes: fields of an appended message count as the file's own.
AROUND = {
    ".onnx": (b"\x72\x50" + b"\x0a\x0c" + KEY + b"\x12\x40", b""),
    ".xml": (b"<!-- " + KEY + b" ", b" -->\n"),
}


def digest(data: bytes | memoryview) -> str:
    """SHA-256 in hexadecimal digits."""
    return sha256(data).hexdigest()


def tail(data: bytes | memoryview, suffix: str) -> bytes:
    """End of a file of a suffix of which the rest is `data`.

    >>> tail(b"<net/>", ".xml")[:22]
    b'<!-- cfnsr_sha256 9d6a'
    """
    return digest(data).encode().join(AROUND[suffix])


def check(data: bytes, suffix: str, path: object) -> None:
    """Raise `InputError` for a file that does not end with its `tail`."""
    size = len(tail(b"", suffix))
    require_whole(data[-size:] == tail(memoryview(data)[:-size], suffix), path)


def require_whole(whole: bool, path: object) -> None:
    """Raise `InputError` for a damaged file."""
    if not whole:
        raise InputError(f"{path} is damaged, or was changed since `cfnsr export` wrote it: export again")
