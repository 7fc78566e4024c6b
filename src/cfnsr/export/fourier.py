"""The discrete Fourier transform by matrix products, which every runtime has and does well."""

import math

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn


def constant(values: NDArray[np.float64]) -> nn.Buffer:
    """Make a float32 constant of a graph."""
    return nn.Buffer(torch.from_numpy(np.ascontiguousarray(values)).float(), persistent=False)


class Fourier(nn.Module):
    """Spectrum of real values: two matrix products with a rotation between them.

    With n = first * second, place a * second + b of the values and place c + first * d of the spectrum:
    the sum over a gives what the sum over b needs, turned by the angle of b * c (Cooley and Tukey 1965).
    A runtime's own transform would be shorter to write. That of ONNX Runtime is slow and off by 1e-4 at a
    length like 16,000, and OpenVINO would compute it in another precision than the rest.

    Args:
        values: n, how many go in; best with two factors that are near to each other.
        kept: how many of the spectrum's are needed, from 0 Hz on; all of them if not given. The sums run to
            the next multiple of `first`, and so does what comes out: see `kept`.
        window: the values are multiplied by.

    >>> values = torch.arange(6.0)
    >>> torch.complex(*Fourier(6)(values)).allclose(torch.fft.fft(values), atol=1e-5)
    True
    """

    def __init__(
        self, values: int, kept: int | None = None, window: NDArray[np.float64] | None = None
    ) -> None:
        super().__init__()
        second = next(factor for factor in range(math.isqrt(values), 0, -1) if values % factor == 0)
        first = values // second
        rows = math.ceil((values if kept is None else kept) / first)
        self.first, self.second = first, second
        self.kept = rows * first
        a, b, c, d = (np.arange(count) for count in (first, second, first, rows))
        angles = 2 * np.pi * np.outer(a, c) / first
        turns = 2 * np.pi * np.outer(c, b) / values
        last = 2 * np.pi * np.outer(b, d) / second
        self.window = constant((np.ones(values) if window is None else window).reshape(first, second).T)
        self.first_cosines, self.first_sines = constant(np.cos(angles)), constant(-np.sin(angles))
        self.turn_cosines, self.turn_sines = constant(np.cos(turns)), constant(np.sin(turns))
        self.second_real = constant(np.concatenate([np.cos(last), np.sin(last)]))
        self.second_imaginary = constant(np.concatenate([-np.sin(last), np.cos(last)]))

    def forward(self, values: Float[Tensor, "*B n"]) -> tuple[Float[Tensor, "*B k"], Float[Tensor, "*B k"]]:
        """Real and imaginary parts.

        No product follows right upon a transposition, and there are sums alone: OpenVINO would rewrite both,
        and forget that they are to be computed in float32 (see `cfnsr.export.openvino`).
        """
        turned = values.reshape(*values.shape[:-1], self.first, self.second)
        turned = turned.transpose(-1, -2) * self.window  # (b, a)
        real, imaginary = turned @ self.first_cosines, turned @ self.first_sines  # (b, c)
        real, imaginary = real.transpose(-1, -2), imaginary.transpose(-1, -2)
        both = torch.cat(
            [
                real * self.turn_cosines + imaginary * self.turn_sines,
                imaginary * self.turn_cosines + real * -self.turn_sines,
            ],
            dim=-1,
        )
        return (
            (both @ self.second_real).transpose(-1, -2).flatten(-2),
            (both @ self.second_imaginary).transpose(-1, -2).flatten(-2),
        )
