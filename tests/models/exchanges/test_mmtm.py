"""MMTM against its equations, channel by channel."""

import math

import pytest
import torch
from torch import Tensor, nn

from cfnsr.errors import InputError
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


def test_each_modality_moves_the_other() -> None:
    torch.manual_seed(2)
    module = MMTM(8, 8)
    video, audio = torch.randn(1, 8, 2, 3, 3), torch.randn(1, 8, 4)
    before = module(video, audio)
    assert not torch.allclose(module(-video, audio)[1], before[1])
    assert not torch.allclose(module(video, -audio)[0], before[0])


def test_no_excitation_changes_nothing() -> None:
    """Twice the sigmoid of 0 is 1."""
    module = MMTM(8, 8)
    for layer in (module.excite_video, module.excite_audio):
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    video, audio = torch.randn(1, 8, 2, 3, 3), torch.randn(1, 8, 4)
    assert torch.equal(module(video, audio)[0], video) and torch.equal(module(video, audio)[1], audio)


def test_one_clip_moves_no_other() -> None:
    torch.manual_seed(3)
    module = MMTM(64, 32)
    video, audio = torch.randn(3, 64, 2, 2, 2), torch.randn(3, 32, 6)
    together = module(video, audio)
    alone = [module(video[i : i + 1], audio[i : i + 1]) for i in range(3)]
    for index in (0, 1):
        torch.testing.assert_close(together[index], torch.cat([pair[index] for pair in alone]))


def test_sizes() -> None:
    def count(video: int, audio: int) -> int:
        return sum(p.numel() for p in MMTM(video, audio).parameters())

    assert count(1024, 32) + count(2048, 64) == 5_580_432
    assert count(512, 32) == 296_752


def test_impossible_ratio() -> None:
    for ratio in (0, 40):
        with pytest.raises(InputError, match=f"ratio is {ratio}: expected more than 0 and at most 32"):
            MMTM(8, 8, ratio=ratio)
