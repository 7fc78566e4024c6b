"""No exchange: the two maps pass by each other."""

from torch import Tensor, nn


class Silent(nn.Module):
    """Return both maps as they came: a stage after which the modalities do not talk."""

    def forward(self, video: Tensor, audio: Tensor) -> tuple[Tensor, Tensor]:
        return video, audio
