"""The logarithmic scale of a face's track: by hand, there and back."""

import math

import pytest
import torch

from cfnsr.logarithmic import compressed, expanded

VALUES = [0.0, 1e-6, 0.2, (math.e - 1) / 3, 1.0, 5.0, 1e3, 1e6]


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("sign", [1, -1])
def test_by_hand(value: float, sign: int) -> None:
    """The logarithm of 1 + 3 x, with the sign of x, and its inverse."""
    logarithm = sign * math.log1p(3 * value)
    assert compressed(torch.tensor([sign * value])).item() == pytest.approx(logarithm, rel=1e-6)
    assert expanded(torch.tensor([logarithm])).item() == pytest.approx(sign * value, rel=1e-5)


def test_there_and_back() -> None:
    """Of any shape; the order stays."""
    values = torch.cat([-torch.tensor(VALUES).flip(0), torch.tensor(VALUES)]).view(2, 4, 2)
    back = expanded(compressed(values))
    torch.testing.assert_close(back, values, atol=0, rtol=1e-5)
    logarithms = torch.linspace(-6, 6, 99)
    torch.testing.assert_close(compressed(expanded(logarithms)), logarithms, atol=1e-6, rtol=1e-6)
    assert (compressed(values).flatten().diff() >= 0).all() and compressed(values).max() < 15
