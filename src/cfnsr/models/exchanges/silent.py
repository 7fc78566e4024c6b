"""No exchange: the two maps pass by each other."""

from torch import Tensor, nn


class Silent(nn.Module):
    """Return both maps as they came: a stage after which the modalities do not talk.

    Args:
        video_channels, audio_channels: taken as every exchange takes them, and not needed.
    """

    def __init__(self, video_channels: int, audio_channels: int) -> None:
        super().__init__()

    def forward(self, video: Tensor, audio: Tensor) -> tuple[Tensor, Tensor]:
        return video, audio
