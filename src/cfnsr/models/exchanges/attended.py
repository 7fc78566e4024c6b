"""Addition of the attended sum of a map to every place of it (eq. 8)."""

import torch
from jaxtyping import Float
from torch import Tensor, nn


class Attended(nn.Module):
    """Add the attended sum of a map's places to every place: `X ⊕ softmax(X_q) ⊗ X` (eq. 8).

    The text under eq. 8 calls ⊕ "the broadcast addition operation of a tensor and a vector", so the product
    is the vector `c = sum_i w_i x_i`, and the mean over the places of what comes out is `mean(x) + c`.

    With uniform weights `c` is the mean, and the mean of the output twice that of the input. A model that
    begins with encoders and classifiers trained without this takes the surplus off (`start_neutral`): half
    the output's mean, which any linear layer behind it could do as well. Then uniform weights change nothing.

    Args:
        residual: keep the map; without it the vector alone stands at every place (Table 2, "w/o residual").

    >>> places = torch.tensor([[[1.0, 5.0]]])
    >>> Attended()(places, torch.tensor([[[0.25, 0.75]]]))  # c is 4
    tensor([[[5., 9.]]])
    """

    def __init__(self, *, residual: bool = True) -> None:
        super().__init__()
        self.residual = residual
        self.surplus = nn.Buffer(torch.zeros(()))  # fraction of the output's mean that is taken off

    def start_neutral(self) -> None:
        """Let uniform weights keep the mean as it came."""
        if self.residual:
            self.surplus.fill_(0.5)

    def forward(
        self, features: Float[Tensor, "B C *places"], weights: Float[Tensor, "B 1 *places"]
    ) -> Float[Tensor, "B C *places"]:
        places = tuple(range(2, features.dim()))
        vector = (features * weights).sum(dim=places, keepdim=True)
        if not self.residual:
            return vector.expand_as(features)
        added = features + vector
        return added - self.surplus * added.mean(dim=places, keepdim=True)


class Multiplied(Attended):
    """Multiply each place by its weight instead: another reading of eq. 8, kept for comparison.

    After a mean over N places the weights, which sum to 1, move the pooled vector by 1/N of `c` alone.
    """

    def start_neutral(self) -> None:
        """Leave it as it is: uniform weights scale the map by 1 + 1/N."""

    def forward(
        self, features: Float[Tensor, "B C *places"], weights: Float[Tensor, "B 1 *places"]
    ) -> Float[Tensor, "B C *places"]:
        weighted = features * weights
        return features + weighted if self.residual else weighted
