"""Early fusion by concatenation and a hidden layer (Table 1, "Concat + FC")."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cfnsr.models.heads.late import StreamHeads


class ConcatFC(nn.Module):
    """A hidden layer over the spliced pair; its scores correct those of the two streams alone.

    The paper gives no layout. Its 26.87 M parameters have room for exactly these: a hidden layer of 256
    makes 26.839 M, and the classifier that each stream was trained with makes 26.869 M.

    Args:
        hidden: units of the hidden layer.

    >>> round(ConcatFC(2, 3, 8)(torch.rand(1, 2), torch.rand(1, 3)).exp().sum().item(), 5)
    1.0
    """

    def __init__(self, video_dim: int, audio_dim: int, classes: int, *, hidden: int = 256) -> None:
        super().__init__()
        self.joint = nn.Sequential(
            nn.Linear(video_dim + audio_dim, hidden), nn.ReLU(), nn.Linear(hidden, classes)
        )
        self.streams = StreamHeads(video_dim, audio_dim, classes)

    def forward(
        self, video: Float[Tensor, "B Dv"], audio: Float[Tensor, "B Da"]
    ) -> Float[Tensor, "B classes"]:
        alone = self.streams.video(video) + self.streams.audio(audio)
        scores: Tensor = self.joint(torch.cat([video, audio], dim=1)) + alone
        return scores.float().log_softmax(dim=1)  # also under mixed precision
