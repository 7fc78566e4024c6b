"""The plain paths that cfnsr is measured beside give the same numbers."""

from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import network, plain
from benchmarks.decoding import decode
from cfnsr import create_model
from cfnsr.data import augment
from cfnsr.media.encode import write_video
from cfnsr.media.mfcc import mfcc
from cfnsr.models.fast import fast, has_bfloat16


def test_the_forward_pass() -> None:
    torch.manual_seed(0)
    model = create_model("cfn_sr", width=1 / 8).eval()
    video, audio = torch.randn(2, 3, 8, 64, 64), torch.randn(2, 13, 212)
    with torch.inference_mode():
        ours = fast(model)(video, audio).exp()
    torch.testing.assert_close(ours, plain.answer(model, video, audio).exp(), atol=1e-5, rtol=0)


def test_training_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("FRAMES", 8), ("SIZE", 64), ("WIDTH", 1 / 8), ("BATCH", 4)):
        monkeypatch.setattr(network, name, value)

    def losses(name: str) -> list[float]:
        task = network.step(name)
        torch.manual_seed(1)  # of the dropout
        return [task() for _ in range(3)]

    plainly, ours = losses("plain"), losses("ours")
    assert ours == pytest.approx(plainly, abs=0.15 if has_bfloat16() else 1e-3)
    assert ours[0] != pytest.approx(ours[2], abs=0.01)  # it learns


def test_clips_of_jpegs(tmp_path: Path) -> None:
    """A JPEG and another way to interpolate: near, not equal."""
    across, down = np.meshgrid(np.linspace(0, 255, 64), np.linspace(0, 255, 64))
    frames = np.stack([np.stack([across, down, 0 * across + 20 * number], -1) for number in range(4)])
    clip = torch.from_numpy(frames.round().astype(np.uint8))
    maps = torch.tensor([[[-0.75, 0, 0.125], [0, 0.75, -0.125]]])  # a crop of 48 pixels, flipped
    ours = augment.apply(augment.normalise(clip.permute(3, 0, 1, 2)[None]), maps)[0]
    plainly = plain.read_clip(
        plain.write_frames(clip.numpy(), tmp_path / "jpegs"), (12, 4, 60, 52), flip=True
    )
    assert plainly.shape == ours.shape and (plainly - ours).abs().mean() < 0.03


def test_mfccs() -> None:
    waveform = 0.1 * np.random.default_rng(0).standard_normal(60_000).astype(np.float32)
    np.testing.assert_allclose(mfcc(waveform), plain.mfcc(waveform), atol=0.01)


def test_decoding_counts_pictures_and_sound(tmp_path: Path) -> None:
    silent = write_video(tmp_path / "silent.mp4", np.zeros((9, 48, 64, 3), np.uint8), 10)
    sounding = write_video(
        tmp_path / "clip.mp4", np.zeros((9, 48, 64, 3), np.uint8), 10, np.zeros(8_000, np.float32), 8_000
    )
    assert decode(silent) == 9 < decode(sounding)


def test_decided_answers_hang_on_the_pictures() -> None:
    torch.manual_seed(0)
    model = create_model("cfn_sr", width=1 / 8).eval()
    video, audio = torch.randn(1, 3, 8, 64, 64), torch.randn(1, 13, 212)
    network.decide(model, video, audio)
    answer, grey = (plain.answer(model, each, audio) for each in (video, torch.zeros_like(video)))
    assert torch.allclose(grey, grey.mean(), atol=1e-4), "of grey pictures nothing is known"
    assert answer.std() == pytest.approx(network.DECIDED, rel=0.01)
