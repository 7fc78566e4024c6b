"""A server on the loopback, a model that hears at once, and recordings for both."""

from __future__ import annotations

import runpy
import tempfile
import threading
import time
import wave
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="the page needs cfnsr[serve]")
httpx = pytest.importorskip("httpx")

from cfnsr import processes  # noqa: E402 - skipped above
from cfnsr.data import preparer  # noqa: E402
from cfnsr.emotions import RAVDESS  # noqa: E402
from cfnsr.features.preparation import Preparation  # noqa: E402
from cfnsr.inference.recogniser import Recogniser  # noqa: E402
from cfnsr.serve.app import create_app  # noqa: E402
from cfnsr.serve.server import Server, listen  # noqa: E402

RATE = 16_000
PATIENCE = 60.0  # seconds until a test gives up: the machine may be loaded


class Ear(Recogniser):
    """A quick recogniser that hears: louder is happier. It waits for `gate`, and `reached` says so."""

    name, labels = "ear", RAVDESS
    reads: Mapping[str, str] = {"audio": "audio"}
    preparation = Preparation(modalities=("audio",))
    normalised = tolerant = False

    def __init__(self, gate: threading.Event | None = None) -> None:
        self.gate, self.reached, self.heard = gate, threading.Event(), 0

    def probabilities(self, clips: Sequence[Mapping[str, np.ndarray]]) -> np.ndarray:
        self.heard += len(clips)
        self.reached.set()
        if self.gate is not None and not self.gate.wait(4 * PATIENCE):
            raise RuntimeError("nobody opened the gate")
        happy = np.array([0.2 + 0.6 / (1 + np.exp(-(clip["level"][0] + 30) / 10)) for clip in clips])
        rest = (1 - happy) / (len(RAVDESS) - 1)
        answers = np.repeat(rest[:, None], len(RAVDESS), axis=1)
        answers[:, RAVDESS.index("happy")] = happy
        return answers


def sound(seconds: float, *, loudness: float = 0.3, silent: tuple[float, float] = (0, 0)) -> np.ndarray:
    """A tone (N,) that is silent for a while."""
    times = np.arange(round(seconds * RATE)) / RATE
    there = (times < silent[0]) | (times >= silent[1])
    return loudness * np.sin(2 * np.pi * 220 * times) * there


def write_wav(path: Path, samples: np.ndarray) -> Path:
    """16 bits, one channel, `RATE`; by the standard library."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes((samples * 32_767).astype("<i2").tobytes())
    return path


@dataclass
class Served:
    """A running server."""

    address: str  # without a slash at the end
    client: Any
    app: Any
    server: Server

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])

    def left(self) -> list[str]:
        """All of uploads: files, and folders within the server's own."""
        root = self.app.state.jobs.root
        return sorted(str(path.relative_to(root)) for path in root.rglob("*"))

    def upload(self, where: str, file: Path | bytes, name: str = "talk.wav", **query: Any) -> Any:
        content = file if isinstance(file, bytes) else file.read_bytes()
        parameters = {key: str(value).lower() for key, value in query.items()}
        return self.client.post(where, params=parameters, files={"file": (name, content)})

    def job(self, file: Path | bytes, name: str = "", **query: Any) -> dict[str, Any]:
        """Send a recording and wait until its job is over."""
        sent = self.upload("/jobs", file, name or getattr(file, "name", "talk.wav"), **query)
        assert sent.status_code == 202, sent.text
        return self.over(sent.json()["id"])

    def over(self, identity: str) -> dict[str, Any]:
        """A job's state once it is over."""
        jobs = self.app.state.jobs
        wait_until(lambda: identity not in jobs.jobs or jobs.jobs[identity].over.is_set())
        found: dict[str, Any] = self.client.get(f"/jobs/{identity}").json()
        return found


def wait_until(true: Callable[[], bool]) -> None:
    """Return as soon as it is true; fail where it never gets so."""
    end = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.01)


@contextmanager
def serving(app: Any) -> Iterator[Served]:
    """Serve an application from a thread, as `cfnsr serve` would, and stop it."""
    with listen("127.0.0.1", 0) as listener:
        server = Server(app)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            wait_until(lambda: server.started or not thread.is_alive())
            assert server.started
            address = f"http://127.0.0.1:{listener.getsockname()[1]}"
            with httpx.Client(base_url=address, timeout=PATIENCE, trust_env=False) as client:
                yield Served(address, client, app, server)
        finally:
            server.should_exit = True
            thread.join(PATIENCE)
            assert not thread.is_alive()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A temporary folder of this module's servers alone."""
    folder = tmp_path_factory.mktemp("temporary")
    before, tempfile.tempdir = tempfile.tempdir, str(folder)
    yield folder
    tempfile.tempdir = before


@pytest.fixture(scope="module")
def new_ear() -> Callable[..., Ear]:
    """Makes a model that hears and is quick."""
    return Ear


@pytest.fixture(scope="module")
def serve(home: Path) -> Callable[..., AbstractContextManager[Served]]:
    """Serves a model with given limits while a context lasts."""

    def serve(model: Any, *, examples: bool = False, **limits: Any) -> AbstractContextManager[Served]:
        return serving(create_app(model, examples=examples, **limits))

    return serve


@pytest.fixture(scope="module")
def ear(serve: Callable[..., AbstractContextManager[Served]], home: Path) -> Iterator[Served]:
    """A server that hears, with small limits."""
    with serve(Ear(), max_bytes=600_000, max_seconds=15) as served:
        yield served
    assert list(home.iterdir()) == [], "a server that was stopped leaves nothing"


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Writes a sound of some seconds, silent for a while."""

    def record(seconds: float, **how: Any) -> Path:
        return write_wav(tmp_path_factory.mktemp("sound") / "talk.wav", sound(seconds, **how))

    return record


@pytest.fixture(scope="module")
def talk(record: Callable[..., Path]) -> Path:
    """9 s of sound, silent in its middle."""
    return record(9, silent=(3, 6.5))


@pytest.fixture(scope="module")
def patches(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Coloured patches are taken for faces, here and, by a plugin, where recordings are decoded."""
    detector = Path(__file__).with_name("patches.py")
    plugin = tmp_path_factory.mktemp("plugin") / "detector.py"
    plugin.write_text(
        "import runpy\nfrom cfnsr.data import preparer\n"
        f"preparer.detector = runpy.run_path({str(detector)!r})['Patches']\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(preparer, "detector", runpy.run_path(str(detector))["Patches"])
        patch.setattr(processes, "loaded", lambda: (plugin,))
        yield


@pytest.fixture(scope="module")
def new_seer(patches: None) -> Callable[..., Any]:
    """Makes a small model that sees and hears; its weights are random, and its answers are not sure."""
    import torch

    import cfnsr
    from cfnsr.features.spec import ModelSpec

    def new_seer(**changes: Any) -> Any:
        settings = {"classes": len(RAVDESS), "mfcc_steps": 212, "width": 1 / 8}
        changes = {"temperature": 0.15, "preparation": Preparation(frames=8, size=64), **changes}
        torch.manual_seed(0)
        model = cfnsr.create_model("cfn_sr", **settings)
        with torch.no_grad():
            for _ in range(8):  # so that what it sees matters as much as what it hears
                model(torch.randn(4, 3, 1, 1, 1) + torch.randn(4, 3, 6, 64, 64), 40 * torch.randn(4, 13, 212))
        model.eval()
        model.config = ModelSpec("cfn_sr", settings, RAVDESS, frames=6, size=64, **changes)
        return model

    return new_seer


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Writes a film of grainy patches on grey: (second) -> colour and left edge of each, and its sound."""
    from cfnsr.media.encode import write_video

    def film(
        seconds: float, faces: Callable[[float], Sequence[tuple[str, int]]], fps: int = 10, **how: Any
    ) -> Path:
        rng = np.random.default_rng(0)

        def pictures() -> Iterator[np.ndarray]:
            for number in range(round(seconds * fps)):
                picture = np.full((96, 192, 3), 90, np.uint8)
                for colour, left in faces(number / fps):
                    patch = rng.integers(0, 90, (48, 40, 3), dtype=np.uint8)
                    patch[..., "rgb".index(colour)] += 165
                    picture[24:72, left : left + 40] = patch
                yield picture

        path = tmp_path_factory.mktemp("film") / "film.mp4"
        return write_video(path, pictures(), fps, sound(seconds, **how).astype(np.float32), RATE)

    return film


@pytest.fixture
def small_examples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Examples are drawn anew, and small."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("cfnsr.serve.examples.SIZE", (128, 96))


@pytest.fixture(scope="module")
def until() -> Callable[[Callable[[], bool]], None]:
    """Waits until something is true."""
    return wait_until
