"""The multimodal transfer module (Table 1, "MMTM")."""

import torch
from torch import nn

from cfnsr.errors import InputError
from cfnsr.models.shapes import AudioMap, Maps, VideoMap


class MMTM(nn.Module):
    """Recalibrate the channels of both maps by a joint summary: squeeze and excitation across modalities.

    Both maps are averaged over their places, one layer joins the two averages, and one layer back for each
    modality gives a gate in (0, 2) for each of its channels. The gates have the 2 of the paper's eq. 5,
    which the released code leaves out: so they can be 1, where trained encoders stay as they are.

    Args:
        ratio: of the two modalities' channels to twice the width of the joint layer.

    Source: Vaezi Joze et al. 2020, "MMTM: Multimodal transfer module for CNN fusion", sec. 3.

    >>> video, audio = MMTM(1024, 32)(torch.rand(1, 1024, 4, 14, 14), torch.rand(1, 32, 26))
    >>> video.shape[1:], audio.shape[1:]
    (torch.Size([1024, 4, 14, 14]), torch.Size([32, 26]))
    """

    def __init__(self, video_channels: int, audio_channels: int, *, ratio: float = 4) -> None:
        super().__init__()
        channels = video_channels + audio_channels
        if not 0 < ratio <= 2 * channels:
            raise InputError(f"ratio is {ratio}: expected more than 0 and at most {2 * channels}, such as 4")
        joint = int(2 * channels / ratio)
        self.squeeze = nn.Linear(channels, joint)
        self.excite_video = nn.Linear(joint, video_channels)
        self.excite_audio = nn.Linear(joint, audio_channels)

    def start_neutral(self) -> None:
        """Let all gates be 1, so that the maps pass on as they came."""
        for parameter in (*self.excite_video.parameters(), *self.excite_audio.parameters()):
            nn.init.zeros_(parameter)

    def forward(self, video: VideoMap, audio: AudioMap) -> Maps:
        averages = torch.cat([video.mean(dim=(2, 3, 4)), audio.mean(dim=2)], dim=1)
        joint = self.squeeze(averages).relu()
        video_gate = 2 * self.excite_video(joint).sigmoid()
        audio_gate = 2 * self.excite_audio(joint).sigmoid()
        return video * video_gate[:, :, None, None, None], audio * audio_gate[:, :, None]
