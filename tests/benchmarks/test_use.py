"""What the benchmarks of a prediction are made of: a long video, commands and servers."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.subjects import CFNSR, ask, repeat, serving
from benchmarks.use import run
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


def test_a_clip_again_and_again(clip: Path, tmp_path: Path) -> None:
    long = repeat(clip, tmp_path / "long.mp4", 3.5)
    info = scan_packets(long)
    assert info.frame_count == 35 and (info.fps, info.duration) == pytest.approx((10, 3.5), abs=0.1)
    found, once = decode(long, frames=35), decode(clip, frames=10)
    assert found.frames is not None and once.frames is not None and found.waveform is not None
    shades = [each.frames.mean(axis=(1, 2, 3)) for each in (found, once)]
    np.testing.assert_allclose(shades[0], np.tile(shades[1], 4)[:35], atol=2)
    assert all(np.abs(part).max() > 0.2 for part in np.array_split(found.waveform[:28_000], 7))


def test_a_command_that_fails_is_reported() -> None:
    with pytest.raises(InputError, match=r"-m cfnsr predict ended with 2: .*nothing does not exist"):
        run([*CFNSR, "predict", "nowhere", "nothing"])
    with pytest.raises(InputError, match=r"does not start: .*config\.json"), serving(Path("nowhere")):
        pass


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
