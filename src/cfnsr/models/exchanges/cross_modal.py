"""The cross-modal block of CFN-SR: self-attention and residual structure (section 2.3)."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cfnsr.models.exchanges.agreement import Agreement, AgreementMaps
from cfnsr.models.exchanges.attended import Attended, Multiplied
from cfnsr.models.exchanges.selection import Selection
from cfnsr.models.shapes import Attention, AudioMap, Maps, VideoMap

GROUP = 16  # clips of a batch in the released code, over which its weights are added up


class CrossModal(nn.Module):
    """Add to the video map what the audio selects of it (section 2.3, eqs. 5-8).

    Self-attention selects among the audio steps; the selected vector scores every place of the video map;
    the softmax of the scores over the places of that clip weights them, and their weighted sum is added to
    every place. The audio passes on unchanged.

    Args:
        audio_channels: channels of the audio map; divisible by 8.
        depth: self-attention layers; 0 leaves the selection out (Table 2, "w/o self-attention").
        residual: keep the video map beside the sum (Table 2, "w/o residual").

    >>> video, audio = CrossModal(2048, 64)(torch.rand(1, 2048, 2, 7, 7), torch.rand(1, 64, 26))
    >>> video.shape[1:], audio.shape[1:]
    (torch.Size([2048, 2, 7, 7]), torch.Size([64, 26]))
    """

    weighted = "video"
    causal = False  # of the self-attention

    def __init__(
        self, video_channels: int, audio_channels: int, *, depth: int = 5, residual: bool = True
    ) -> None:
        super().__init__()
        self.selection = Selection(audio_channels, depth, causal=self.causal)
        self.agreement = Agreement(video_channels, audio_channels)
        self.attended = Attended(residual=residual)

    def weights(self, video: VideoMap, audio: AudioMap) -> Float[Tensor, "B 1 T H W"]:
        """Attention of each place of the video map; sums to 1 over a clip's places (eq. 7)."""
        selected = self.selection(audio.transpose(1, 2))
        weights: Tensor = self.agreement(video.flatten(2).transpose(1, 2), selected)
        return weights.reshape(-1, 1, *video.shape[2:])

    def attention(self, video: VideoMap, audio: AudioMap) -> Attention:
        """Weights of the video's places, and token weights of the audio steps in the vector behind them.

        Both sum to 1 over a clip's places or steps.
        """
        weights = self.weights(video, audio).squeeze(1)
        total = weights.sum(dim=(1, 2, 3), keepdim=True)
        return weights / total, self.selection.token_weights(audio.transpose(1, 2))

    def uniform(self, video: VideoMap, audio: AudioMap) -> Maps:
        """Output of the block if all places had the same weight."""
        weights = torch.full_like(video[:, :1], 1 / video[0, 0].numel())
        return self.attended(video, weights), audio

    def forward(self, video: VideoMap, audio: AudioMap) -> Maps:
        return self.attended(video, self.weights(video, audio)), audio


class CrossModalMap(CrossModal):
    """Multiply the map by the weights instead of adding their sum (see `Multiplied`)."""

    def __init__(self, video_channels: int, audio_channels: int) -> None:
        super().__init__(video_channels, audio_channels)
        self.attended = Multiplied()


class CrossModalMaps(CrossModal):
    """Weight the places by k maps instead of one (see `AgreementMaps`): another reading of eq. 7."""

    def __init__(self, video_channels: int, audio_channels: int) -> None:
        super().__init__(video_channels, audio_channels)
        self.agreement = AgreementMaps(video_channels, audio_channels)  # type: ignore[assignment]


class CrossModalReleased(CrossModalMap):
    """The block as the released code computes it, but for one clip at a time.

    Its softmax is over the places of each time step, its weights are added up over a batch of 16 clips, and
    of the audio the last step of a causal attention is kept. Here a clip is its own batch of 16, so that its
    result does not depend on other clips.

    Source: https://github.com/skeletonNN/CFN-SR.
    """

    causal = True

    def weights(self, video: VideoMap, audio: AudioMap) -> Float[Tensor, "B 1 T H W"]:
        """Attention of each place; sums to 16 over the places of each time step."""
        selected = self.selection(audio.transpose(1, 2))
        scores = self.agreement.scores(video.flatten(2).transpose(1, 2), selected)
        by_step: Tensor = scores.reshape(-1, video.shape[2], video.shape[3] * video.shape[4])
        weights: Tensor = GROUP * by_step.softmax(dim=2)
        return weights.reshape(-1, 1, *video.shape[2:])

    def uniform(self, video: VideoMap, audio: AudioMap) -> Maps:
        """Output of the block if all places of a time step had the same weight."""
        weights = torch.full_like(video[:, :1], GROUP / video[0, 0, 0].numel())
        return self.attended(video, weights), audio
