"""Agreement of each place of one map with a vector of the other modality (eq. 7)."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

HIDDEN = 64  # k of eq. 7


class JointChannels(nn.Module):
    """Project places and the other modality's vector to k joint channels (inside the softmax of eq. 7).

    Args:
        channels: width of a place.
        selected_channels: width of the other modality's vector.
    """

    def __init__(self, channels: int, selected_channels: int) -> None:
        super().__init__()
        self.places = nn.Linear(channels, HIDDEN)  # W_v and b_v, where the places are video's
        self.selected = nn.Linear(selected_channels, HIDDEN, bias=False)  # W_a

    def joint(
        self, places: Float[Tensor, "B N C"], selected: Float[Tensor, "B C2"]
    ) -> Float[Tensor, "B N k"]:
        """Project to the k channels of each place, between -1 and 1."""
        return torch.tanh(self.places(places) + self.selected(selected)[:, None])


class Agreement(JointChannels):
    """Score each place against the other modality's vector; softmax over the places of that clip (eq. 7).

    >>> weights = Agreement(2048, 64)(torch.rand(2, 98, 2048), torch.rand(2, 64))
    >>> weights.shape, weights.sum(dim=1).allclose(torch.ones(2))
    (torch.Size([2, 98]), True)
    """

    def __init__(self, channels: int, selected_channels: int) -> None:
        super().__init__(channels, selected_channels)
        # A bias is the same for all places, so the softmax cancels it: the published count
        # has one all the same.
        self.score = nn.Linear(HIDDEN, 1)

    def scores(self, places: Float[Tensor, "B N C"], selected: Float[Tensor, "B C2"]) -> Float[Tensor, "B N"]:
        """Scores before the softmax, one a place."""
        scores: Tensor = self.score(self.joint(places, selected)).squeeze(2)
        return scores

    def forward(
        self, places: Float[Tensor, "B N C"], selected: Float[Tensor, "B C2"]
    ) -> Float[Tensor, "B N"]:
        return self.scores(places, selected).softmax(dim=1)


class AgreementMaps(JointChannels):
    """Each of the k channels as a map with a softmax of its own; their mean weights the places.

    The weighted sum of the places is linear in the weights, so this is the mean of the k maps' vectors.

    >>> weights = AgreementMaps(2048, 64)(torch.rand(2, 98, 2048), torch.rand(2, 64))
    >>> weights.shape, weights.sum(dim=1).allclose(torch.ones(2))
    (torch.Size([2, 98]), True)
    """

    def forward(
        self, places: Float[Tensor, "B N C"], selected: Float[Tensor, "B C2"]
    ) -> Float[Tensor, "B N"]:
        return self.joint(places, selected).softmax(dim=1).mean(dim=2)
