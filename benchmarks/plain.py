"""What the field's scripts do, restated: eager float32, a JPEG a frame on disk, PIL, one take at a time.

Tests compare each with cfnsr's own.
"""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from cfnsr.data.augment import RGB_MEAN, RGB_STD
from cfnsr.media.mfcc import HOP, N_FFT, N_MFCC, SAMPLE_RATE


def answer(model: nn.Module, video: Tensor, audio: Tensor) -> Tensor:
    """Run a model forward as it is."""
    with torch.no_grad():
        log_probabilities: Tensor = model(video, audio)
    return log_probabilities


def learn(
    model: nn.Module, optimizer: torch.optim.Optimizer, video: Tensor, audio: Tensor, labels: Tensor
) -> float:
    """Take a training step as it is written in every tutorial."""
    optimizer.zero_grad()
    loss = functional.nll_loss(model(video, audio), labels)
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return loss.item()


def write_frames(frames: np.ndarray, folder: Path) -> list[Path]:
    """Write pictures (T, H, W, 3) as a JPEG each."""
    folder.mkdir(parents=True)
    paths = [folder / f"{number:03d}.jpg" for number in range(len(frames))]
    for path, frame in zip(paths, frames, strict=True):
        Image.fromarray(frame).save(path, quality=95)
    return paths


def read_clip(
    paths: list[Path], box: tuple[float, float, float, float], flip: bool
) -> Float[Tensor, "3 T H W"]:
    """Read a clip of JPEGs, crop, flip and normalise it, frame by frame.

    Args:
        box: left, upper, right and lower side of the crop, in pixels; it is resized to the frame's size.
    """
    mean, deviation = (torch.tensor(each).view(3, 1, 1) for each in (RGB_MEAN, RGB_STD))
    frames = []
    for path in paths:
        with Image.open(path) as opened:
            picture = opened.convert("RGB")
        picture = picture.resize(picture.size, Image.Resampling.BILINEAR, box)
        if flip:
            picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        tensor = torch.from_numpy(np.array(picture)).permute(2, 0, 1).float() / 255
        frames.append((tensor - mean) / deviation)
    return torch.stack(frames, dim=1)


def mfcc(waveform: np.ndarray) -> np.ndarray:
    """Compute MFCCs with librosa."""
    import librosa

    found: np.ndarray = librosa.feature.mfcc(
        y=waveform, sr=SAMPLE_RATE, n_mfcc=N_MFCC, n_fft=N_FFT, hop_length=HOP, pad_mode="constant"
    )
    return found
