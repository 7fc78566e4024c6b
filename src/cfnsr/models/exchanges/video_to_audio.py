"""The cross-modal block in the other direction (Table 2, "V->A cross-modal blocks")."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cfnsr.models.exchanges.agreement import HIDDEN, Agreement
from cfnsr.models.exchanges.attended import Attended
from cfnsr.models.exchanges.selection import Selection
from cfnsr.models.shapes import Attention, AudioMap, Maps, VideoMap


class VideoToAudio(nn.Module):
    """Add to the audio map what the video selects of it: eqs. 5-8 with the roles swapped.

    The places of the video map, projected to tokens as wide as the audio's, go through self-attention; the
    selected vector scores every audio step; the softmax of the scores over the steps of that clip weights
    them, and their weighted sum is added to every step. The video passes on unchanged. Positions count along
    the flattened places (time, then rows, then columns), not by row and column.

    Args:
        depth: self-attention layers; 0 leaves the selection out.
        residual: keep the audio map beside the sum.

    >>> video, audio = VideoToAudio(2048, 64)(torch.rand(1, 2048, 2, 7, 7), torch.rand(1, 64, 26))
    >>> video.shape[1:], audio.shape[1:]
    (torch.Size([2048, 2, 7, 7]), torch.Size([64, 26]))
    """

    weighted = "audio"

    def __init__(
        self, video_channels: int, audio_channels: int, *, depth: int = 5, residual: bool = True
    ) -> None:
        super().__init__()
        self.tokens = nn.Linear(video_channels, HIDDEN)
        self.selection = Selection(HIDDEN, depth)
        self.agreement = Agreement(audio_channels, HIDDEN)
        self.attended = Attended(residual=residual)

    def weights(self, video: VideoMap, audio: AudioMap) -> Float[Tensor, "B 1 S"]:
        """Attention of each step of the audio map; sums to 1 over a clip's steps (eq. 7)."""
        selected = self.selection(self._tokenise(video))
        weights: Tensor = self.agreement(audio.transpose(1, 2), selected)
        return weights[:, None]

    def attention(self, video: VideoMap, audio: AudioMap) -> Attention:
        """Token weights of the video's places in the selected vector, and weights of the audio steps."""
        places = self.selection.token_weights(self._tokenise(video)).reshape(-1, *video.shape[2:])
        return places, self.weights(video, audio).squeeze(1)

    def uniform(self, video: VideoMap, audio: AudioMap) -> Maps:
        """Output of the block if all audio steps had the same weight."""
        return video, self.attended(audio, torch.full_like(audio[:, :1], 1 / audio.shape[2]))

    def forward(self, video: VideoMap, audio: AudioMap) -> Maps:
        return video, self.attended(audio, self.weights(video, audio))

    def _tokenise(self, video: VideoMap) -> Float[Tensor, "B N K"]:
        tokens: Tensor = self.tokens(video.flatten(2).transpose(1, 2))
        return tokens
