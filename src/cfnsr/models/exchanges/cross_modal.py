"""The cross-modal block of CFN-SR: self-attention and residual structure (section 2.3)."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cfnsr.models.exchanges.agreement import Agreement
from cfnsr.models.exchanges.selection import Selection


class CrossModal(nn.Module):
    """Weight each place of the video map by its agreement with the audio (section 2.3, eqs. 5-8).

    Self-attention selects among the audio steps; the selected vector scores every place of the
    video map; the softmax of the scores over the places of that clip multiplies the map. The audio
    passes on unchanged.

    Args:
        video_channels: channels of the video map.
        audio_channels: channels of the audio map; divisible by 8.
        depth: self-attention layers; 0 leaves the selection out (Table 2, "w/o self-attention").
        residual: add the unweighted video map back (Table 2, "w/o residual").

    >>> video, audio = CrossModal(2048, 64)(torch.rand(1, 2048, 2, 7, 7), torch.rand(1, 64, 26))
    >>> video.shape[1:], audio.shape[1:]
    (torch.Size([2048, 2, 7, 7]), torch.Size([64, 26]))
    """

    weighs = "video"

    def __init__(
        self, video_channels: int, audio_channels: int, *, depth: int = 5, residual: bool = True
    ) -> None:
        super().__init__()
        self.selection = Selection(audio_channels, depth)
        self.agreement = Agreement(video_channels, audio_channels)
        self.residual = residual
        self.rescales = not residual  # what is left of the map is divided among its places

    def weights(
        self, video: Float[Tensor, "B C T H W"], audio: Float[Tensor, "B C2 S"]
    ) -> Float[Tensor, "B 1 T H W"]:
        """How much each place of the video map agrees with the audio; sums to 1 over a clip's places."""
        selected = self.selection(audio.transpose(1, 2))
        weights: Tensor = self.agreement(video.flatten(2).transpose(1, 2), selected)
        return weights.reshape(-1, 1, *video.shape[2:])

    def looked(
        self, video: Float[Tensor, "B C T H W"], audio: Float[Tensor, "B C2 S"]
    ) -> tuple[Float[Tensor, "B T H W"], Float[Tensor, "B S"]]:
        """The weights of the video's places, and the shares of the audio steps in the vector behind them."""
        return self.weights(video, audio).squeeze(1), self.selection.shares(audio.transpose(1, 2))

    def even(
        self, video: Float[Tensor, "B C T H W"], audio: Float[Tensor, "B C2 S"]
    ) -> tuple[Float[Tensor, "B C T H W"], Float[Tensor, "B C2 S"]]:
        """What the block would pass on if all places had the same weight."""
        return self._weighed(video, torch.full_like(video[:, :1], 1 / video[0, 0].numel())), audio

    def forward(
        self, video: Float[Tensor, "B C T H W"], audio: Float[Tensor, "B C2 S"]
    ) -> tuple[Float[Tensor, "B C T H W"], Float[Tensor, "B C2 S"]]:
        return self._weighed(video, self.weights(video, audio)), audio

    def _weighed(
        self, video: Float[Tensor, "B C T H W"], weights: Float[Tensor, "B 1 T H W"]
    ) -> Float[Tensor, "B C T H W"]:
        weighted = video * weights
        return weighted + video if self.residual else weighted
