"""The cross-modal block in the other direction (Table 2, "V->A cross-modal blocks")."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cfnsr.models.exchanges.agreement import HIDDEN, Agreement
from cfnsr.models.exchanges.selection import Selection


class VideoToAudio(nn.Module):
    """Weight each step of the audio map by its agreement with the video: eqs. 5-8 with the roles swapped.

    The places of the video map, projected to tokens as wide as the audio's, go through self-attention; the
    selected vector scores every audio step; the softmax of the scores over the steps of that clip multiplies
    the map. The video passes on unchanged. Positions count along the flattened places (time, then rows, then
    columns), so the attention is told where in that order a token stands, not its row and column.

    Args:
        video_channels: channels of the video map.
        audio_channels: channels of the audio map.
        depth: self-attention layers; 0 leaves the selection out.
        residual: add the unweighted audio map back.

    >>> video, audio = VideoToAudio(2048, 64)(torch.rand(1, 2048, 2, 7, 7), torch.rand(1, 64, 26))
    >>> video.shape[1:], audio.shape[1:]
    (torch.Size([2048, 2, 7, 7]), torch.Size([64, 26]))
    """

    weighs = "audio"

    def __init__(
        self, video_channels: int, audio_channels: int, *, depth: int = 5, residual: bool = True
    ) -> None:
        super().__init__()
        self.tokens = nn.Linear(video_channels, HIDDEN)
        self.selection = Selection(HIDDEN, depth)
        self.agreement = Agreement(audio_channels, HIDDEN)
        self.residual = residual
        self.rescales = not residual  # what is left of the map is divided among its places

    def weights(
        self, video: Float[Tensor, "B C T H W"], audio: Float[Tensor, "B C2 S"]
    ) -> Float[Tensor, "B 1 S"]:
        """How much each step of the audio map agrees with the video; sums to 1 over a clip's steps."""
        selected = self.selection(self._tokens(video))
        weights: Tensor = self.agreement(audio.transpose(1, 2), selected)
        return weights[:, None]

    def looked(
        self, video: Float[Tensor, "B C T H W"], audio: Float[Tensor, "B C2 S"]
    ) -> tuple[Float[Tensor, "B T H W"], Float[Tensor, "B S"]]:
        """The shares of the video's places in the selected vector, and the weights of the audio steps."""
        shares = self.selection.shares(self._tokens(video)).reshape(-1, *video.shape[2:])
        return shares, self.weights(video, audio).squeeze(1)

    def even(
        self, video: Float[Tensor, "B C T H W"], audio: Float[Tensor, "B C2 S"]
    ) -> tuple[Float[Tensor, "B C T H W"], Float[Tensor, "B C2 S"]]:
        """What the block would pass on if all audio steps had the same weight."""
        return video, self._weighed(audio, torch.full_like(audio[:, :1], 1 / audio.shape[2]))

    def forward(
        self, video: Float[Tensor, "B C T H W"], audio: Float[Tensor, "B C2 S"]
    ) -> tuple[Float[Tensor, "B C T H W"], Float[Tensor, "B C2 S"]]:
        return video, self._weighed(audio, self.weights(video, audio))

    def _tokens(self, video: Float[Tensor, "B C T H W"]) -> Float[Tensor, "B N K"]:
        tokens: Tensor = self.tokens(video.flatten(2).transpose(1, 2))
        return tokens

    def _weighed(
        self, audio: Float[Tensor, "B C2 S"], weights: Float[Tensor, "B 1 S"]
    ) -> Float[Tensor, "B C2 S"]:
        weighted = audio * weights
        return weighted + audio if self.residual else weighted
