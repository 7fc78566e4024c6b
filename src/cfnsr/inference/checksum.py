"""A checksum at the end of an exported file, by which a damaged file is recognised.

Neither format has one of its own: a few missing or changed bytes of the weights would go unnoticed, and
every answer be a little wrong. It proves that a file is whole, not who wrote it.
"""

import hashlib

from cfnsr.errors import InputError

KEY = b"cfnsr_sha256"
DIGITS = 64
XML = (b"<!-- " + KEY + b" ", b" -->\n")


def _field(number: int, data: bytes) -> bytes:
    """Encode a field of a protocol buffer that holds fewer than 128 bytes."""
    return bytes([number << 3 | 2, len(data)]) + data


def digest(data: bytes | memoryview) -> str:
    """SHA-256 in hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def _digest(data: bytes | memoryview) -> bytes:
    return digest(data).encode()


def _onnx_tail(digest: bytes) -> bytes:
    """Encode an entry of `metadata_props`: the fields of an appended message count as the file's own."""
    return _field(14, _field(1, KEY) + _field(2, digest))


def with_onnx_checksum(model: bytes) -> bytes:
    """Append the SHA-256 of an ONNX file as the last entry of its metadata."""
    return model + _onnx_tail(_digest(model))


def check_onnx(data: bytes, path: object) -> None:
    """Raise `InputError` when a file is not what `with_onnx_checksum` made."""
    size = len(_onnx_tail(b"0" * DIGITS))
    _check(data[-size:] == _onnx_tail(_digest(memoryview(data)[:-size])), path)


def with_xml_checksum(text: bytes) -> bytes:
    """Append the SHA-256 of an XML file in a comment behind it.

    >>> check_xml(with_xml_checksum(b"<net/>"), "model.xml")
    """
    return text + _digest(text).join(XML)


def check_xml(data: bytes, path: object) -> None:
    """Raise `InputError` when a file is not what `with_xml_checksum` made."""
    size = DIGITS + sum(map(len, XML))
    _check(data[-size:] == _digest(memoryview(data)[:-size]).join(XML), path)


def check_weights(data: bytes, expected: str, path: object) -> None:
    """Raise `InputError` when the file beside an XML file is not the one it was written with."""
    _check(digest(data) == expected, path)


def _check(whole: bool, path: object) -> None:
    if not whole:
        raise InputError(f"{path} is damaged, or was changed since `cfnsr export` wrote it: export again")
