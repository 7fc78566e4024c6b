"""No exchange: the two maps pass by each other."""

from torch import nn

from cfnsr.models.shapes import AudioMap, Maps, VideoMap


class NoExchange(nn.Module):
    """Return both maps as they came: a stage after which the modalities do not talk.

    Args:
        video_channels, audio_channels: taken as every exchange takes them, and not needed.
    """

    def __init__(self, video_channels: int, audio_channels: int) -> None:
        super().__init__()

    def forward(self, video: VideoMap, audio: AudioMap) -> Maps:
        return video, audio
