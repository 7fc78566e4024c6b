"""The benchmark: what it measures, that all take turns, and its page."""

import json
from pathlib import Path

import numpy as np
import pytest

from cfnsr.bench import predict as module
from cfnsr.bench import subjects
from cfnsr.bench.predict import Figure, alternate, measure, page, run
from cfnsr.bench.subjects import CFNSR, ask, repeat, serving
from cfnsr.errors import InputError
from cfnsr.media.decode import decode
from cfnsr.media.encode import write_video
from cfnsr.media.scan import scan_packets


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """Ten pictures that grow lighter, and a tone."""
    shades = np.arange(20, 220, 20, dtype=np.uint8)
    pictures = np.broadcast_to(shades[:, None, None, None], (10, 48, 64, 3))
    sound = 0.3 * np.sin(2 * np.pi * 300 * np.arange(8_000) / 8_000, dtype=np.float32)
    return write_video(tmp_path / "clip.mp4", pictures, 10, sound, 8_000)


def test_all_take_turns_and_the_median_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    now, order = 0.0, ""
    costs = {"a": iter([1.0, 9.0, 2.0]), "b": iter([4.0, 3.0, 5.0])}

    def work(name: str) -> None:
        nonlocal now, order
        now += next(costs[name])
        order += name

    monkeypatch.setattr(module.time, "perf_counter", lambda: now)
    assert alternate({name: lambda name=name: work(name) for name in "ab"}, 3) == {"a": 2.0, "b": 4.0}  # type: ignore[misc]
    assert order == "ababab"


def test_a_clip_again_and_again(clip: Path, tmp_path: Path) -> None:
    long = repeat(clip, tmp_path / "long.mp4", 3.5)
    info = scan_packets(long)
    assert info.frame_count == 35 and (info.fps, info.duration) == pytest.approx((10, 3.5), abs=0.1)
    found, once = decode(long, frames=35), decode(clip, frames=10)
    assert found.frames is not None and once.frames is not None and found.waveform is not None
    shades = [each.frames.mean(axis=(1, 2, 3)) for each in (found, once)]
    np.testing.assert_allclose(shades[0], np.tile(shades[1], 4)[:35], atol=2)
    assert all(np.abs(part).max() > 0.2 for part in np.array_split(found.waveform[:28_000], 7))


def test_the_page_shows_goal_figure_and_ratio(clip: Path) -> None:
    figures = [Figure("one thing", None, 0.251, "s", 0.3), Figure("another", 3.0, 0.75, "s/s")]
    lines = page(figures, clip).splitlines()
    assert lines[-2:] == ["| one thing | 0.3 | 0.25 s |  |  |", "| another |  | 0.75 s/s | 3.00 | 4.0 |"]
    assert "cfnsr bench predict CLIP" in lines[2] and "64 x 48" in lines[2]
    assert figures[1].as_json()["ratio"] == 4


def test_a_command_that_fails_is_reported() -> None:
    with pytest.raises(InputError, match=r"-m cfnsr predict ended with 2: .*nothing does not exist"):
        run([*CFNSR, "predict", "nowhere", "nothing"])
    with pytest.raises(InputError, match=r"does not start: .*config\.json"), serving(Path("nowhere")):
        pass


def test_a_clip_without_sound_is_refused(tmp_path: Path) -> None:
    silent = write_video(tmp_path / "clip.mp4", np.zeros((9, 48, 64, 3), np.uint8), 10)
    with pytest.raises(InputError, match=r"clip\.mp4 has no pictures or no sound"):
        measure(silent)


@pytest.mark.long
def test_all_is_measured(shared: Path, yunet: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With a small network and a video that is not long."""
    for package in ("openvino", "nncf", "onnxscript", "uvicorn"):
        pytest.importorskip(package)
    encoder = shared / "models" / "whisper-tiny-en-encoder"
    monkeypatch.setenv("CFNSR_YUNET", str(yunet))
    monkeypatch.setenv("CFNSR_SPEECH_ENCODER", str(encoder))
    monkeypatch.setattr(subjects, "WIDTH", 1 / 8)
    for place in (subjects, module):
        monkeypatch.setattr(place, "LONG", 7.0)
    tasks: list[str] = []
    figures = measure(sorted((shared / "clips").rglob("*.mp4"))[1], rounds=1, progress=tasks.append)
    assert len(tasks) == 8 and [figure.goal for figure in figures if figure.goal] == [
        *(0.3, 0.5),  # import, help
        *(5.0, 2.0, 0.8),  # one file
        *(0.35, 0.2),  # a long one
        *(0.5, 1.0),  # live
    ]
    assert all(0 < figure.ours < 60 for figure in figures if "import" not in figure.what)
    json.dumps([figure.as_json() for figure in figures])


def test_a_server_that_refuses_is_reported(tmp_path: Path) -> None:
    from http.server import BaseHTTPRequestHandler, HTTPServer
    from threading import Thread

    class Refusing(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers["Content-Length"])
            assert b'filename="clip.mp4"' in self.rfile.read(length)
            self.send_error(422, "no face")

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Refusing) as server:
        thread = Thread(target=server.handle_request)
        thread.start()
        (tmp_path / "clip.mp4").write_bytes(b"pictures")
        with pytest.raises(InputError, match="the server answers 422"):
            ask(f"http://127.0.0.1:{server.server_port}", tmp_path / "clip.mp4")
        thread.join()
