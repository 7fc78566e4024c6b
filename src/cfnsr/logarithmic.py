"""Values of a face's track on a logarithmic scale, signs kept, and back."""

from jaxtyping import Float
from torch import Tensor

STRETCH = 3.0  # of a value before its logarithm: most intensities are well below 1 of their 5


def compressed(values: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
    """Compress skewed intensities to a scale on which they lie more uniformly.

    >>> import torch
    >>> compressed(torch.tensor([0.0, 1, -1])).round(decimals=3)
    tensor([ 0.0000,  1.3860, -1.3860])
    """
    return values.sign() * (STRETCH * values.abs()).log1p()


def expanded(values: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
    """Invert `compressed`.

    >>> import torch
    >>> expanded(compressed(torch.tensor([0.0, 1, -1])))
    tensor([ 0.,  1., -1.])
    """
    return values.sign() * values.abs().expm1() / STRETCH
