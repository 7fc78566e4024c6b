"""MMTM against its equations, channel by channel."""

import math

import pytest
import torch
from torch import Tensor, nn

from cfnsr.models.exchanges.mmtm import MMTM


def neuron(layer: nn.Linear, row: int, inputs: list[float]) -> float:
    weights = layer.weight[row].tolist()
    return sum(w * x for w, x in zip(weights, inputs, strict=True)) + layer.bias[row].item()


def derive(module: MMTM, video: Tensor, audio: Tensor) -> tuple[Tensor, Tensor]:
    """Eqs. 1-6 of the source for each clip, with plain numbers."""
    out_video, out_audio = torch.zeros_like(video), torch.zeros_like(audio)
    for clip in range(len(video)):
        averages = []
        for channel in range(video.shape[1]):
            places = video[clip, channel].flatten().tolist()
            averages.append(sum(places) / len(places))
        for channel in range(audio.shape[1]):
            steps = audio[clip, channel].tolist()
            averages.append(sum(steps) / len(steps))
        joint = [
            max(0.0, neuron(module.squeeze, row, averages)) for row in range(module.squeeze.out_features)
        ]
        for channel in range(video.shape[1]):
            gate = 2 / (1 + math.exp(-neuron(module.excite_video, channel, joint)))
            out_video[clip, channel] = gate * video[clip, channel]
        for channel in range(audio.shape[1]):
            gate = 2 / (1 + math.exp(-neuron(module.excite_audio, channel, joint)))
            out_audio[clip, channel] = gate * audio[clip, channel]
    return out_video, out_audio


@pytest.mark.parametrize("ratio", [4, 2.5])
def test_against_the_equations(ratio: float) -> None:
    torch.manual_seed(1)
    video, audio = torch.randn(3, 6, 2, 3, 3), torch.randn(3, 5, 4)
    module = MMTM(6, 5, ratio=ratio)
    torch.testing.assert_close(module(video, audio), derive(module, video, audio), atol=1e-6, rtol=1e-5)


def test_a_neutral_start_changes_nothing() -> None:
    """Twice the sigmoid of 0 is 1."""
    module = MMTM(8, 8)
    module.start_neutral()
    video, audio = torch.randn(1, 8, 2, 3, 3), torch.randn(1, 8, 4)
    assert torch.equal(module(video, audio)[0], video) and torch.equal(module(video, audio)[1], audio)
