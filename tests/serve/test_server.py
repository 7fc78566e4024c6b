"""A server as a process: who is let in, slow and broken connections, and how it ends."""

import os
import select
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from cfnsr.errors import InputError
from cfnsr.serve import server, uploads
from cfnsr.serve.app import create_app
from cfnsr.serve.server import listen
from cfnsr.serve.uploads import private_folder

Make = Callable[..., Any]
Until = Callable[[Callable[[], bool]], None]


def connect(served: Any) -> socket.socket:
    return socket.create_connection(("127.0.0.1", served.port), timeout=60)


def head(served: Any, length: int, where: str = "/jobs") -> bytes:
    kind = f"Content-Type: multipart/form-data; boundary=b\r\nContent-Length: {length}"
    return f"POST {where} HTTP/1.1\r\nHost: 127.0.0.1:{served.port}\r\n{kind}\r\n\r\n".encode()


BEGIN = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'


def read_all(line: socket.socket) -> bytes:
    """What comes until the server closes the line."""
    got = b""
    with suppress(ConnectionResetError):
        while chunk := line.recv(65_536):
            got += chunk
    return got


@pytest.mark.parametrize(
    "sent",
    [b"", b"GET /health HTTP/1.1\r\nHost: 127.0", b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\nGET"],
)
def test_a_connection_without_a_request_is_closed(
    serve: Any, new_ear: Make, monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    monkeypatch.setattr("cfnsr.serve.server.HEAD_SECONDS", 0.2)
    with serve(new_ear()) as served, connect(served) as line:
        line.sendall(sent)
        answer = read_all(line)  # until it is closed
    assert answer.startswith(b"HTTP/1.1 200") == sent.endswith(b"GET")


def test_half_an_upload_is_deleted_when_its_client_goes_away(ear: Any, until: Until) -> None:
    busy = ear.app.state.jobs
    with connect(ear) as line:
        line.sendall(head(ear, 400_000) + BEGIN + bytes(200_000))
        until(lambda: busy.busy == 1)
    until(lambda: busy.busy == 0)
    assert ear.left() == [] and busy.jobs == {}


def test_a_client_that_waits_no_longer_stops_the_work(
    serve: Make, new_ear: Make, record: Make, until: Until
) -> None:
    gate = threading.Event()
    model = new_ear(gate)
    with serve(model) as served:
        body = BEGIN + record(30).read_bytes() + b"\r\n--b--\r\n"
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


@pytest.mark.parametrize("limit", ["stall_seconds", "upload_seconds"])
def test_an_upload_that_stalls_is_answered_and_deleted(
    serve: Make, new_ear: Make, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    monkeypatch.setattr(uploads, "DRAIN_SECONDS", 0.1)
    with serve(new_ear(), **{limit: 0.3}) as served, connect(served) as line:
        line.sendall(head(served, 400_000) + BEGIN + bytes(1_000))
        answer = read_all(line)
        assert answer.startswith(b"HTTP/1.1 408 ") and b"nothing arrived for " in answer
        assert served.left() == [] and served.app.state.jobs.busy == 0


def test_who_is_declined_while_sending_is_answered(
    serve: Make, new_ear: Make, talk: Path, until: Until
) -> None:
    """Once all is sent, for a line that is cut while a client sends would take the answer with it."""
    gate = threading.Event()
    model = new_ear(gate)
    with serve(model, queue=0) as served:
        try:
            served.upload("/jobs", talk)
            assert model.reached.wait(60)
            with connect(served) as line:
                line.sendall(head(served, 8_000_000))
                assert not select.select([line], [], [], 0.5)[0]
                for _ in range(8):
                    line.sendall(bytes(1_000_000))
                assert read_all(line).startswith(b"HTTP/1.1 429 ")
        finally:
            gate.set()


def test_too_large_an_upload_is_answered_while_it_is_sent(ear: Any) -> None:
    """Beyond what any buffer between the two holds: who only sends, as most clients do, sees the answer."""
    body = BEGIN + bytes(8_000_000) + b"\r\n--b--\r\n"
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
    cannot = pytest.raises(InputError, match=r"cannot listen at .* another --port")
    with listen("127.0.0.1", 0) as taken, cannot:
        listen("127.0.0.1", taken.getsockname()[1])
    with pytest.raises(InputError, match="port 70000"):
        listen("127.0.0.1", 70_000)


PROGRAM = """
import sys, threading
from pathlib import Path
import numpy as np
from cfnsr.features.preparation import Preparation
from cfnsr.emotions import RAVDESS
from cfnsr.inference.recogniser import Recogniser
from cfnsr.serve.app import create_app
from cfnsr.serve.server import serve

class Slow(Recogniser):
    name, labels, reads = "slow", RAVDESS, {"audio": "audio"}
    preparation, normalised, tolerant = Preparation(modalities=("audio",)), False, False
    def probabilities(self, clips):
        Path(sys.argv[1]).touch()
        threading.Event().wait(0.5)
        return np.full((len(clips), 8), 1 / 8)

serve(create_app(Slow(), examples=False), port=0, started=lambda address: print(address, flush=True))
"""


@pytest.mark.parametrize(("patience", "status"), [(60, 200), (0, 409)])
def test_a_server_that_is_told_to_stop_finishes_what_runs(
    serve: Make,
    new_ear: Make,
    talk: Path,
    until: Until,
    monkeypatch: pytest.MonkeyPatch,
    patience: float,
    status: int,
) -> None:
    monkeypatch.setattr(server, "FINISH_SECONDS", patience)
    monkeypatch.setattr(server, "LEAVE_SECONDS", 120)
    gate = threading.Event()
    model = new_ear(gate)
    with serve(model) as served, ThreadPoolExecutor(1) as client:
        answer = client.submit(served.upload, "/predict", talk)
        try:
            assert model.reached.wait(60)
            (job,) = served.app.state.jobs.jobs.values()
            served.server.should_exit = True
            until(lambda: not served.server.servers[0].is_serving())
            until(lambda: patience > 0 or job.stopped.is_set())
        finally:
            gate.set()
        assert answer.result(60).status_code == status


def test_a_second_ctrl_c_does_not_cut_the_end_short(new_ear: Make) -> None:
    """uvicorn would leave at once, without the application's own end and with a traceback of it."""
    process = server.Server(create_app(new_ear()))
    for _ in range(3):
        process.handle_exit(signal.SIGINT, None)
    assert process.should_exit and not process.force_exit
    assert process._captured_signals == [signal.SIGINT], "which ends the process then"


@pytest.mark.parametrize(
    "by", [pytest.param(signal.SIGINT, marks=pytest.mark.long), signal.SIGTERM, signal.SIGKILL]
)
def test_a_server_that_is_told_to_stop_leaves_nothing(
    record: Make, tmp_path: Path, until: Until, by: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    environment = {**os.environ, "TMPDIR": str(temporary)}
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "reached")]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            address = process.stdout.readline().strip()
            assert address.startswith("http://127.0.0.1:")
            with httpx.Client(base_url=address, timeout=60, trust_env=False) as client:
                for _ in range(2):
                    files = {"file": ("a.wav", record(30).read_bytes())}
                    assert client.post("jobs", files=files).status_code == 202
                until((tmp_path / "reached").exists)
            (folder,) = temporary.glob("cfnsr-serve-*")
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700
            process.send_signal(by)
            process.wait(60)
        finally:
            process.kill()
    if by == signal.SIGKILL:
        assert len(list(temporary.glob("*/*/upload.wav"))) == 2, "nobody could delete them"
        os.utime(folder, (1, 1))
        monkeypatch.setattr(tempfile, "tempdir", str(temporary))
        with private_folder():  # as the next server does when it starts
            pass
    assert [path for path in temporary.iterdir() if path.name.startswith("cfnsr")] == []
