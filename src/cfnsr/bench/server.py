"""A running `cfnsr serve`, asked as any program would ask it."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cfnsr.errors import InputError

PATIENCE = 120  # seconds


@contextmanager
def serving(model: Path) -> Iterator[str]:
    """Run a server of a model while this lasts; yields its address.

    Raises:
        InputError: it does not start.
    """
    command = [sys.executable, "-m", "cfnsr", "serve", str(model), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None and server.stderr is not None  # noqa: S101 - pipes
            address = server.stdout.readline().split(" ")[0].strip()
            if not address.startswith("http"):
                server.terminate()
                raise InputError(f"`cfnsr serve` does not start: {server.stderr.read().strip()[-300:]}")
            yield address.rstrip("/")
        finally:
            server.terminate()


def ask(address: str, file: Path) -> None:
    """Have a file recognised by `POST /predict`; raise `InputError` where that is refused."""
    mark = uuid.uuid4().hex
    head = (
        f'--{mark}\r\nContent-Disposition: form-data; name="file"; filename="clip{file.suffix}"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n"
    )
    body = head.encode() + file.read_bytes() + f"\r\n--{mark}--\r\n".encode()
    kind = {"Content-Type": f"multipart/form-data; boundary={mark}"}
    request = urllib.request.Request(f"{address}/predict", body, kind)  # noqa: S310 - a loopback address
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:  # noqa: S310
            json.load(answer)["emotion"]
    except urllib.error.HTTPError as error:
        raise InputError(f"the server answers {error.code}: {error.read().decode()[:300]}") from None
