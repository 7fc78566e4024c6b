"""A recording that takes its decoder down, or holds it up, costs its own request alone."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import cfnsr
from cfnsr import processes
from cfnsr.features.preparation import Preparation
from cfnsr.serve.decoding import Decoder

Make = Callable[..., Any]

# In the decoder's process: what it does to recordings of these suffixes, without letting Python run again.
HARM = """
import os, signal, time
from cfnsr import processes
from cfnsr.serve import decoding

processes.PATIENCE = 1.0
made = decoding.Windows


def windows(file, *arguments, **settings):
    if file.suffix == ".mkv":
        os.kill(os.getpid(), signal.SIGSEGV)
    if file.suffix == ".flac":
        time.sleep(1e6)
    return made(file, *arguments, **settings)


decoding.Windows = windows
"""


@pytest.fixture
def harm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "harm.py"
    path.write_text(HARM)
    monkeypatch.setattr(processes, "loaded", lambda: (path,))
    return path


def test_a_decoder_that_dies_or_hangs_takes_nothing_down(
    serve: Make, new_ear: Make, talk: Path, harm: Path
) -> None:
    with serve(new_ear()) as served:
        good = served.upload("/predict", talk).json()
        for name, reason in (
            ("a.mkv", "the process that read it died (-11)"),
            ("a.flac", "it took too long"),
        ):
            answer = served.upload("/predict", talk, name)
            assert answer.status_code == 422
            assert answer.json()["error"] == {
                "reason": "broken",
                "message": f"upload{Path(name).suffix} cannot be decoded: {reason}; convert it",
            }
            assert served.upload("/predict", talk).json() == good, "the next is served"
        assert served.left() == []


def test_a_server_stops_while_a_decoder_hangs(
    serve: Make, new_ear: Make, talk: Path, harm: Path, until: Make
) -> None:
    harm.write_text(HARM.replace("PATIENCE = 1.0", "PATIENCE = 1e6"))
    with serve(new_ear()) as served:
        identity = served.upload("/jobs", talk, "a.flac").json()["id"]
        until(lambda: served.client.get(f"/jobs/{identity}").json()["state"] == "working")
    # The server is gone: it waited for no decoder.


def test_windows_are_the_same_there(new_ear: Make, talk: Path) -> None:
    ear = new_ear()
    decoder = Decoder(processes.LEAST_MEMORY)
    there = cfnsr.predict(ear, talk, reader=decoder.windows)
    assert there == cfnsr.predict(ear, talk)
    decoder.forget()
    worker = decoder._worker
    assert worker is not None and str(talk) not in _open_files(worker.process.pid)
    decoder.end()


def _open_files(process: int | None) -> list[str]:
    folder = Path(f"/proc/{process}/fd")
    return [str(each.readlink()) for each in folder.iterdir()] if folder.exists() else []


FACES = """
import numpy as np
from cfnsr.data import preparer


class Detector:
    def detect(self, frame):
        return np.array([[20, 20, 40, 40, 0.9]], np.float32)


preparer.detector = Detector
"""


def test_a_recording_leaves_no_threads_behind(
    film: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of its decoders, in the process that goes on to the next."""
    plugin = tmp_path / "faces.py"
    plugin.write_text(FACES)
    monkeypatch.setattr(processes, "loaded", lambda: (plugin,))
    path, preparation = film(3.0, lambda second: [("r", 20)]), Preparation(frames=4, size=16)
    decoder = Decoder(processes.LEAST_MEMORY)
    counts = []
    for _ in range(4):
        assert len(list(decoder.windows(path, preparation))) == 1
        decoder.forget()
        assert decoder._worker is not None
        counts.append(len(list(Path(f"/proc/{decoder._worker.process.pid}/task").iterdir())))
    decoder.end()
    assert counts[-1] <= counts[0], counts
