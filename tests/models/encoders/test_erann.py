"""The log-mel encoder against the paper's description, by hand and by re-derivation."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from cfnsr.models.encoders.erann import ERANN, AudioResidualBlock
from cfnsr.models.streams import OneStream


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def shapes(encoder: ERANN, steps: int) -> list[tuple[int, ...]]:
    sound = torch.empty(1, 128, steps)
    found = []
    for stage in encoder.eval().stages:
        sound = stage(sound)
        found.append(tuple(sound.shape[1:]))
    assert encoder.pool(sound).shape == (1, encoder.dim)
    return found


def test_the_map_of_the_paper() -> None:
    """128 bands become 8; 128 steps a second become 8, and with a step s_m 2 to that power fewer."""
    with torch.device("meta"):
        encoder = ERANN()
        assert shapes(encoder, 128) == [(128, 32, 32), (256, 16, 16), (512, 8, 8)]
        assert encoder.channels == (128, 256, 512) and encoder.dim == 512
        assert [len(layer) for layer in encoder.stages[0][2:]] == [4, 4, 4]  # type: ignore[index]
        for step in range(4):
            assert shapes(ERANN(step=step), 128)[-1] == (512, 8, 8 // 2**step)


@pytest.mark.parametrize("step", range(4))
@pytest.mark.parametrize("steps", [1, 127, 128, 129, 314, 1_280])
def test_any_length(steps: int, step: int) -> None:
    """Each stage rounds its share of the steps up, and both sides of every sum fit."""
    with torch.device("meta"):
        found = shapes(ERANN(1 / 8, step=step), steps)
    expected = steps
    for stage in (1, 2, 3, 4):
        expected = -(-expected // (4 if stage <= step else 2))
    assert found[-1] == (64, 8, expected)


def test_parameters_of_a_block_by_hand() -> None:
    """Two norms, two kernels without bias, and a 1 x 1 shortcut where the shape changes."""
    assert parameters(AudioResidualBlock(16, 16)) == 2 * 16 + 16 * 16 * 9 + 2 * 16 + 16 * 16 * 9
    assert parameters(AudioResidualBlock(16, 32, (2, 2))) == (
        2 * 16 + 16 * 32 * 9 + 2 * 32 + 32 * 32 * 9 + 16 * 32
    )
    assert parameters(AudioResidualBlock(16, 32, (2, 4))) == (
        2 * 16 + 16 * 32 * 3 * 6 + 2 * 32 + 32 * 32 * 3 * 5 + 16 * 32
    )


@pytest.mark.parametrize(
    ("width", "step", "classes", "others", "ratio"),
    [
        (6 / 4, 1, 527, 6 * 87.8, 9.7),  # ERANN-1-6 for AudioSet, beside an ensemble of six AST
        (5 / 4, 2, 50, 87.0, 2.3),  # W = 5 for ESC-50, beside one AST
        (1, 0, 8, 79.7, 3.3),  # W = 4 for RAVDESS, beside CNN14 of PANNs
    ],
)
def test_parameters_agree_with_the_ratios_of_the_papers_abstract(
    width: float, step: int, classes: int, others: float, ratio: float
) -> None:
    """The abstract gives each size as so many times smaller than a network of known size."""
    with torch.device("meta"):
        model = OneStream(ERANN(width, step=step), "audio", classes)
    assert others * 1e6 / parameters(model) == pytest.approx(ratio, abs=0.05)


def test_a_block_against_its_formula() -> None:
    """y = W2 * f(BN(W1 * f(BN(x)))) + Ws x, with the long kernel as a sum over its places."""
    torch.manual_seed(0)
    block = AudioResidualBlock(3, 5, (2, 4)).eval()
    norms = [module for module in block.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.running_mean.normal_()  # type: ignore[union-attr]
        norm.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    first, second, shortcut = (module for module in block.modules() if isinstance(module, nn.Conv2d))

    def active(x: torch.Tensor, norm: nn.BatchNorm2d) -> torch.Tensor:
        assert norm.running_mean is not None and norm.running_var is not None
        scale = norm.weight / (norm.running_var + norm.eps).sqrt()
        shifted = (x - norm.running_mean[:, None, None]) * scale[:, None, None] + norm.bias[:, None, None]
        return torch.where(shifted > 0, shifted, 0.01 * shifted)

    x = torch.randn(2, 3, 8, 10)
    padded = F.pad(active(x, norms[0]), (1, 9, 1, 1))
    longer = sum(
        torch.einsum("oi,bifs->bofs", first.weight[:, :, f, s], padded[:, :, f : f + 7 : 2, s : s + 9 : 4])
        for f in range(3)
        for s in range(6)
    )
    assert isinstance(longer, torch.Tensor) and longer.shape[2:] == (4, 3)
    after = F.conv2d(active(longer, norms[1]), second.weight, padding=(1, 2))
    side = torch.einsum("oi,bifs->bofs", shortcut.weight[:, :, 0, 0], x[:, :, ::2, ::4])
    torch.testing.assert_close(block(x), after + side, atol=1e-4, rtol=1e-4)


def test_pooling_adds_mean_and_maximum() -> None:
    encoder = ERANN.light(1 / 8)
    sound = torch.randn(3, 64, 8, 5)
    both = sound.flatten(2).mean(2) + sound.flatten(2).max(2).values
    torch.testing.assert_close(encoder.pool(sound), encoder.dense(both))
