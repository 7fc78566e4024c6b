"""Load a server with sixteen clients for half an hour, and look what it answers, keeps and leaves.

    python tests/reliability/soak.py --minutes 30 --out docs/results/soak.json   # `make soak`

The server is `cfnsr serve` with an exported CFN-SR of random weights. The clients send real recordings, as
they are, broken, slowly, or only the beginning of them. Afterwards the server is stopped while it works, and
what runs must be finished. A fault is an answer that was not to be expected, any 5xx but 503, a 503 or 429
without Retry-After, a file left behind, and memory or threads that grow.
"""

import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from argparse import ArgumentParser
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil

CLIENTS = 16
PATIENCE = 300.0  # seconds for an answer, on a machine with other work
GROWTH = 128 * 1024 * 1024  # bytes that the later half of the samples may lie above the earlier, by median
KINDS = {  # of requests: share, and what may be answered beside 429 and 503
    "good": (0.5, {200}),
    "job": (0.15, {202}),
    "broken": (0.15, {400, 413, 415, 422}),
    "slow": (0.1, {200}),
    "aborted": (0.1, set[int]()),
}


@dataclass
class Seen:
    """What the clients and the watch of the process saw."""

    statuses: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)  # of good requests
    memory: list[int] = field(default_factory=list)
    threads: list[int] = field(default_factory=list)


class Server:
    """`cfnsr serve` in a process of its own, with its own folder for temporary files."""

    def __init__(self, model: Path, folder: Path) -> None:
        self.temporary, self.log = folder / "tmp", folder / "serve.log"
        self.temporary.mkdir()
        command = [sys.executable, "-m", "cfnsr", "serve", str(model), "--port", "0", "--max-megabytes", "64"]
        environment = {**os.environ, "TMPDIR": str(self.temporary), "PYTHONUNBUFFERED": "1"}
        with self.log.open("wb") as file:
            self.process = subprocess.Popen(command, stdout=file, stderr=file, env=environment)
        while not (found := re.search(r"http://127\.0\.0\.1:(\d+)/", self.log.read_text())):
            if self.process.poll() is not None:
                raise SystemExit(f"the server did not start: {self.log.read_text()}")
            time.sleep(0.1)
        self.port = int(found[1])
        self.address = f"http://127.0.0.1:{self.port}"

    def measure(self) -> tuple[int, int]:
        """Memory in bytes and threads, of the server and the processes that it started."""
        memory = threads = 0
        main = psutil.Process(self.process.pid)
        for each in (main, *main.children(recursive=True)):
            try:
                memory, threads = memory + each.memory_info().rss, threads + each.num_threads()
            except psutil.NoSuchProcess:
                continue
        return memory, threads

    def busy(self) -> int:
        """Recordings that arrive, wait or are worked on."""
        health = httpx.get(f"{self.address}/health", timeout=PATIENCE).json()
        return int(health["queue"]["busy"])

    def left(self) -> list[str]:
        """Files among its temporary ones."""
        return [str(path) for path in self.temporary.rglob("*") if path.is_file()]


def export_model(folder: Path) -> Path:
    """Export CFN-SR at a CPU's size with random weights."""
    from cfnsr.emotions import RAVDESS
    from cfnsr.export.onnx import export_onnx
    from cfnsr.features.preparation import Preparation
    from cfnsr.features.spec import ModelSpec
    from cfnsr.models.zoo import create_model
    from cfnsr.training.checkpoint import save_weights

    preparation = Preparation(size=64, frames=10)
    settings: dict[str, Any] = {"classes": len(RAVDESS), "mfcc_steps": preparation.mfcc_steps, "width": 1 / 8}
    ModelSpec("cfn_sr", settings, RAVDESS, frames=8, size=64, preparation=preparation).write(folder)
    save_weights(create_model("cfn_sr", **settings), folder)
    export_onnx(folder, folder / "model.onnx")
    return folder / "model.onnx"


def recordings() -> list[bytes]:
    """Read the real clips that are there."""
    shared = Path(os.environ.get("CFNSR_SHARED", "../shared"))
    found = [*sorted(shared.glob("clips/*/*.flv")), *sorted(shared.glob("clips/*/*/*.mp4"))]
    if not found:
        raise SystemExit(f"no clips in {shared}: set CFNSR_SHARED to the folder with clips/")
    return [path.read_bytes() for path in found]


def broken(content: bytes, rng: random.Random) -> bytes:
    """Damage a recording, or put something else in its place."""
    kind = rng.randrange(4)
    if kind == 0:
        return content[: rng.randrange(1, len(content) // 4)]
    if kind == 1:
        return rng.randbytes(20_000)
    if kind == 2:
        return b"<script>alert(1)</script>" * 100
    return content[:64] + rng.randbytes(len(content) // 2)


def body(content: bytes) -> tuple[bytes, bytes]:
    """Headers and body of an upload, for a client that sends them by hand."""
    form = b"--x\r\ncontent-disposition: form-data; name=file; filename=talk.mp4\r\n\r\n" + content
    form += b"\r\n--x--\r\n"
    head = "POST /predict HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n"
    head += f"content-type: multipart/form-data; boundary=x\r\ncontent-length: {len(form)}\r\n\r\n"
    return head.encode(), form


def by_hand(server: Server, content: bytes, rng: random.Random, *, abort: bool) -> int | None:
    """Upload piece by piece with pauses; the status, or None where it was broken off."""
    head, form = body(content)
    with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE) as line:
        line.sendall(head)
        pieces = 10
        size = -(-len(form) // pieces)
        stop = rng.randrange(pieces) if abort else pieces
        for piece in range(stop):
            line.sendall(form[piece * size : (piece + 1) * size])
            time.sleep(rng.uniform(0, 0.4))
        if abort:
            return None
        answer = b""
        while b"\r\n\r\n" not in answer and (read := line.recv(65_536)):
            answer += read
    head = answer.partition(b"\r\n\r\n")[0].lower()
    status = int(head.split()[1])
    if status in (429, 503) and b"retry-after:" not in head:
        raise AssertionError(f"{status} without Retry-After")
    return status


def ask(server: Server, client: httpx.Client, clips: list[bytes], rng: random.Random, seen: Seen) -> None:
    """Send one request and note what came of it."""
    (kind,) = rng.choices([*KINDS], [share for share, _ in KINDS.values()])
    content = rng.choice(clips)
    started = time.monotonic()
    try:
        if kind in ("slow", "aborted"):
            status = by_hand(server, content, rng, abort=kind == "aborted")
        else:
            sent = broken(content, rng) if kind == "broken" else content
            where = "/jobs" if kind == "job" else "/predict"
            answer = client.post(where, files={"file": ("talk.mp4", sent)})
            status = answer.status_code
            if status in (429, 503) and "retry-after" not in answer.headers:
                raise AssertionError(f"{status} without Retry-After")
            if status == 202 and rng.random() < 0.5:
                client.delete(answer.headers["location"])
            if "Traceback" in answer.text or str(server.temporary) in answer.text:
                raise AssertionError(f"an answer shows {answer.text[:200]}")
    except (AssertionError, httpx.HTTPError, OSError) as error:
        seen.faults.append(f"{kind}: {type(error).__name__}: {error}")
        return
    seen.statuses[f"{kind} {status or 'broken off'}"] += 1
    if status is not None and status not in {429, 503, *KINDS[kind][1]}:
        seen.faults.append(f"{kind}: answered {status}")
    if kind == "good" and status == 200:
        seen.seconds.append(time.monotonic() - started)
    if status in (429, 503):
        time.sleep(rng.uniform(0.1, 1))  # less than it asks for: the load is to stay


def soak(folder: Path, minutes: float, seed: int = 0) -> Seen:
    """Load a server for some minutes, then stop it while it works."""
    seen, clips = Seen(), recordings()
    server = Server(export_model(folder), folder)
    end = time.monotonic() + 60 * minutes

    def client(number: int) -> None:
        rng = random.Random(seed * CLIENTS + number)
        with httpx.Client(base_url=server.address, timeout=PATIENCE) as own:
            while time.monotonic() < end and server.process.poll() is None:
                ask(server, own, clips, rng, seen)

    clients = [threading.Thread(target=client, args=(number,)) for number in range(CLIENTS)]
    for thread in clients:
        thread.start()
    while any(thread.is_alive() for thread in clients):
        time.sleep(min(5.0, 2 * minutes))
        if server.process.poll() is None:
            for values, value in zip((seen.memory, seen.threads), server.measure(), strict=True):
                values.append(value)
    if server.process.poll() is not None:
        seen.faults.append(f"the server ended: {server.log.read_text()[-500:]}")
        return seen
    while server.busy():
        time.sleep(0.1)
    if left := server.left():
        seen.faults.append(f"{len(left)} files left: {left[:3]}")
    seen.faults += grown(seen)
    seen.faults += stopped_gracefully(server, clips[0])
    if "Traceback" in (log := server.log.read_text()):
        seen.faults.append(f"in the log: {log[log.index('Traceback') :][:1000]}")
    return seen


def grown(seen: Seen) -> list[str]:
    """Compare memory and threads of the later half with those of the earlier, without the first tenth."""
    faults = []
    for what, values, most in (("memory", seen.memory, GROWTH), ("threads", seen.threads, 4)):
        settled = values[len(values) // 10 :]
        half = len(settled) // 2
        if half and np.median(settled[half:]) > np.median(settled[:half]) + most:
            faults.append(f"{what} grew from {np.median(settled[:half])} to {np.median(settled[half:])}")
    return faults


def stopped_gracefully(server: Server, content: bytes) -> list[str]:
    """Stop the server while it works on a recording: its client must still be answered."""
    answers: list[int | str] = []

    def send() -> None:
        try:
            files = {"file": ("talk.mp4", content)}
            answers.append(httpx.post(f"{server.address}/predict", files=files, timeout=PATIENCE).status_code)
        except httpx.HTTPError as error:
            answers.append(type(error).__name__)

    client = threading.Thread(target=send)
    client.start()
    while client.is_alive() and not server.busy():
        time.sleep(0.01)
    server.process.send_signal(signal.SIGTERM)
    client.join()
    server.process.wait()
    faults = []
    if answers not in ([200], [409]):  # 409: cancelled, as it took longer than a stopping server waits
        faults.append(f"the server that was stopped answered {answers}")
    if left := [str(path) for path in server.temporary.rglob("*")]:
        faults.append(f"the server that was stopped left {left[:3]}")
    return faults


def summary(seen: Seen) -> dict[str, object]:
    """Collect the figures of a soak."""
    statuses = {f"answers: {name}": count for name, count in sorted(seen.statuses.items())}
    p50, p95 = np.percentile(seen.seconds, [50, 95])
    memory = [round(value / 2**20) for value in seen.memory]
    return {
        "requests": sum(seen.statuses.values()),
        **statuses,
        "p50, s": round(float(p50), 2),
        "p95, s": round(float(p95), 2),
        "memory at first, most, last, MiB": f"{memory[0]}, {max(memory)}, {memory[-1]}",
        "threads at first, most, last": f"{seen.threads[0]}, {max(seen.threads)}, {seen.threads[-1]}",
        "faults": len(seen.faults),
    }


def main() -> int:
    """Soak a server and print what came of it."""
    parser = ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="cfnsr-soak-") as folder:
        seen = soak(Path(folder), options.minutes, options.seed)
    figures = {"minutes": options.minutes, "clients": CLIENTS, **summary(seen)}
    for name, value in figures.items():
        print(f"{name}: {value}")
    print("".join(f"  {fault}\n" for fault in seen.faults), end="")
    if options.out is not None:
        rows = [{"figure": name, "value": value} for name, value in figures.items()]
        options.out.write_text(json.dumps({"rows": rows}, indent=1) + "\n")
    return int(bool(seen.faults))


if __name__ == "__main__":
    sys.exit(main())
