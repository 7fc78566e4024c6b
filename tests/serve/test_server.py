"""A server as a process: who is let in, slow and broken connections, and how it ends."""

import asyncio
import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the page needs cfnsr[serve]")

from cfnsr.errors import InputError
from cfnsr.serve import server
from cfnsr.serve.server import hosts_of, listen
from cfnsr.serve.uploads import private_folder, release

Make = Callable[..., Any]
Until = Callable[[Callable[[], bool]], None]


def connect(served: Any) -> socket.socket:
    return socket.create_connection(("127.0.0.1", served.port), timeout=60)


def head(served: Any, length: int, where: str = "/jobs") -> bytes:
    lines = [
        f"POST {where} HTTP/1.1",
        f"Host: 127.0.0.1:{served.port}",
        "Content-Type: multipart/form-data; boundary=b",
        f"Content-Length: {length}",
    ]
    return "\r\n".join([*lines, "", ""]).encode()


PART = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'


def read_all(line: socket.socket) -> bytes:
    """What comes until the server closes the line."""
    got = b""
    try:
        while chunk := line.recv(65_536):
            got += chunk
    except ConnectionResetError:
        pass
    return got


def test_half_an_upload_is_deleted_when_its_client_goes_away(ear: Any, until: Until) -> None:
    busy = ear.app.state.jobs
    with connect(ear) as line:
        line.sendall(head(ear, 400_000) + PART + bytes(200_000))
        until(lambda: busy.busy == 1 and len(ear.left()) >= 1)
    until(lambda: busy.busy == 0)
    assert ear.left() == [] and busy.jobs == {}


def test_a_client_that_waits_no_longer_stops_the_work(
    serve: Make, new_ear: Make, record: Make, until: Until
) -> None:
    import threading

    gate = threading.Event()
    model = new_ear(gate)
    with serve(model) as served:
        body = PART + record(30).read_bytes() + b"\r\n--b--\r\n"
        try:
            with connect(served) as line:
                line.sendall(head(served, len(body), "/predict") + body)
                assert model.reached.wait(60)
                assert len(served.left()) == 2
            until(lambda: served.app.state.jobs.jobs == {})
            until(lambda: served.left() == [])
        finally:
            gate.set()
        until(lambda: served.app.state.jobs.busy == 0)
        assert model.heard == 4, "it stopped after the first windows"


def test_an_upload_that_stalls_is_answered_and_deleted(serve: Make, new_ear: Make) -> None:
    with serve(new_ear(), stall_seconds=0.3) as served, connect(served) as line:
        line.sendall(head(served, 400_000) + PART + bytes(1_000))
        answer = read_all(line)
        assert answer.startswith(b"HTTP/1.1 408 ") and b"nothing arrived for 0.3 s" in answer
        assert served.left() == [] and served.app.state.jobs.busy == 0


@pytest.mark.parametrize("start", [b"", b"GET / HTTP/1.1\r\nHost: loc"])
def test_a_request_whose_head_does_not_come_is_cut(
    serve: Make, new_ear: Make, monkeypatch: pytest.MonkeyPatch, start: bytes
) -> None:
    monkeypatch.setattr(server, "HEADER_SECONDS", 0.3)
    with serve(new_ear()) as served, connect(served) as line:
        line.sendall(start)
        assert read_all(line) == b""


def test_a_second_request_on_a_line_has_no_more_time(
    serve: Make, new_ear: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve(new_ear()) as served, connect(served) as line:
        whole = f"GET /health HTTP/1.1\r\nHost: localhost:{served.port}\r\n\r\n".encode()
        line.sendall(whole)
        answer = b""
        while not answer.endswith(b"}}"):  # head and body may come apart
            answer += line.recv(65_536)
        assert answer.startswith(b"HTTP/1.1 200 ")
        monkeypatch.setattr(server, "HEADER_SECONDS", 0.3)
        line.sendall(whole[:20])
        assert read_all(line) == b""


def test_too_large_an_upload_is_answered_while_it_is_sent(ear: Any) -> None:
    """Beyond what any buffer between the two holds: who only sends, as most clients do, sees the answer."""
    body = PART + bytes(8_000_000) + b"\r\n--b--\r\n"
    with connect(ear) as line:
        line.sendall(head(ear, len(body)) + body)
        assert read_all(line).startswith(b"HTTP/1.1 413 ")
    chunked = head(ear, 0).replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
    with connect(ear) as line:
        line.sendall(chunked + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))
        assert read_all(line).startswith(b"HTTP/1.1 413 ")
    assert ear.left() == []


def test_who_asks_before_sending_is_answered_before_sending(ear: Any) -> None:
    with connect(ear) as line:
        line.sendall(head(ear, 10**9).replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n"))
        assert read_all(line).startswith(b"HTTP/1.1 413 ")


def test_other_machines_are_let_in_only_on_purpose() -> None:
    for host in ("0.0.0.0", "::", "192.0.2.1", "example.org"):
        with pytest.raises(InputError, match="lets other machines in"):
            listen(host, 0)
    listen("0.0.0.0", 0, public=True).close()
    with (
        listen("127.0.0.1", 0) as taken,
        pytest.raises(InputError, match=r"cannot listen at .* another --port"),
    ):
        listen("127.0.0.1", taken.getsockname()[1])
    with pytest.raises(InputError, match="port 70000"):
        listen("127.0.0.1", 70_000)


def test_names_that_a_server_is_called_by() -> None:
    own = {"localhost", "127.0.0.1", "[::1]"}
    assert hosts_of("127.0.0.1") == own and hosts_of("localhost") == own
    assert hosts_of("127.0.0.2") == {*own, "127.0.0.2"}
    assert hosts_of("::") is None and hosts_of("192.0.2.1") == {*own, "192.0.2.1"}
    assert hosts_of("::", ["box.lan"]) == {*own, "box.lan"}


PROGRAM = """
import sys, threading
from pathlib import Path
import numpy as np
from cfnsr.features.preparation import Preparation
from cfnsr.emotions import RAVDESS
from cfnsr.serve.app import create_app
from cfnsr.serve.server import serve

class Slow:
    name, labels, reads = "slow", RAVDESS, {"audio": "audio"}
    preparation, normalised, tolerant = Preparation(modalities=("audio",)), False, False
    def probabilities(self, clips):
        Path(sys.argv[1]).touch()
        threading.Event().wait(0.5)
        return np.full((len(clips), 8), 1 / 8)

serve(create_app(Slow(), examples=False), port=0, started=lambda address: print(address, flush=True))
"""


def test_a_second_ctrl_c_does_not_cut_the_end_short() -> None:
    """uvicorn would leave at once, without the application's own end and with a traceback of it."""
    left = []

    async def told() -> Any:
        orderly = server._server(lambda: left.append("left"))(server.configure(lambda scope: None))
        for _ in range(3):
            orderly.handle_exit(signal.SIGINT, None)
        await asyncio.sleep(0)
        return orderly

    orderly = asyncio.run(told())
    assert left == ["left"]
    assert orderly.should_exit and not orderly.force_exit
    assert orderly._captured_signals == [signal.SIGINT], "which ends the process then"


@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_server_that_is_told_to_stop_leaves_nothing(
    record: Make, tmp_path: Path, until: Until, by: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    import httpx

    temporary = tmp_path / "temporary"
    temporary.mkdir()
    environment = {**os.environ, "TMPDIR": str(temporary)}
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "reached")]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            address = process.stdout.readline().strip()
            assert address.startswith("http://127.0.0.1:")
            (folder,) = temporary.glob("cfnsr-serve-*")
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700
            with httpx.Client(base_url=address, timeout=60, trust_env=False) as client:
                for _ in range(2):
                    files = {"file": ("a.wav", record(30).read_bytes())}
                    assert client.post("jobs", files=files).status_code == 202
                until((tmp_path / "reached").exists)
            process.send_signal(by)
            process.wait(60)
        finally:
            process.kill()
    if by == signal.SIGKILL:
        assert len(list(temporary.glob("*/*/upload.wav"))) == 2, "nobody could delete them"
        os.utime(folder, (1, 1))
        monkeypatch.setattr(tempfile, "tempdir", str(temporary))
        another = private_folder()  # as the next server does when it starts
        another.rmdir()
        release(another)
    assert [path for path in temporary.iterdir() if path.name.startswith("cfnsr")] == []
