"""The forward pass of every model: two streams with exchanges between their stages, or one stream alone."""

from collections.abc import Iterable
from typing import Protocol, cast

from jaxtyping import Float
from torch import Tensor, nn

from cfnsr.errors import InputError
from cfnsr.models.encoders.cnn import MFCC_COEFFICIENTS


class Encoder(Protocol):
    """What a stream is made of: three stages, their channels, and a pooling to one vector of width `dim`."""

    stages: nn.ModuleList
    channels: tuple[int, ...]
    dim: int

    def pool(self, features: Tensor) -> Tensor: ...


def _check_video(video: Tensor | None) -> Tensor:
    if video is None or video.dim() != 5 or video.shape[1] != 3:
        given = "none" if video is None else tuple(video.shape)
        raise InputError(f"video is {given}: expected pictures of shape (B, 3, frames, height, width)")
    if not video.is_floating_point():
        raise InputError(
            f"video is {video.dtype}: expected normalised pictures, see cfnsr.data.augment.normalise"
        )
    return video


def _check_audio(audio: Tensor | None, encoder: Encoder) -> Tensor:
    steps = getattr(encoder, "steps", None)
    if (
        audio is None
        or audio.dim() != 3
        or audio.shape[1] != MFCC_COEFFICIENTS
        or steps not in (None, audio.shape[2])
    ):
        given = "none" if audio is None else tuple(audio.shape)
        raise InputError(
            f"audio is {given}: expected MFCCs of shape (B, {MFCC_COEFFICIENTS}, {steps}); another length "
            f"needs a model made for it, create_model(..., mfcc_steps=...)"
        )
    return audio


class TwoStream(nn.Module):
    """A video and an audio encoder, an exchange after each stage, and a head over the pooled pair.

    Args:
        video: encoder of the pictures.
        audio: encoder of the sound; as many stages as `video`.
        exchanges: one module a stage, `(video_map, audio_map) -> (video_map, audio_map)`.
        head: `(video_vector, audio_vector) -> (B, classes)` log-probabilities.
    """

    modalities = ("video", "audio")

    def __init__(
        self, video: nn.Module, audio: nn.Module, exchanges: Iterable[nn.Module], head: nn.Module
    ) -> None:
        super().__init__()
        self.video = video
        self.audio = audio
        self.exchanges = nn.ModuleList(exchanges)
        self.head = head

    def forward(
        self, video: Float[Tensor, "B 3 T H W"], audio: Float[Tensor, "B 13 S"]
    ) -> Float[Tensor, "B classes"]:
        """Log-probabilities of the emotions. A clip's are its own: they do not depend on the batch."""
        video_encoder, audio_encoder = cast(Encoder, self.video), cast(Encoder, self.audio)
        video, audio = _check_video(video), _check_audio(audio, audio_encoder)
        if len(video) != len(audio):
            raise InputError(
                f"{len(video)} clips of video and {len(audio)} of audio: expected as many of each"
            )
        for video_stage, audio_stage, exchange in zip(
            video_encoder.stages, audio_encoder.stages, self.exchanges, strict=True
        ):
            video, audio = exchange(video_stage(video), audio_stage(audio))
        log_probabilities: Tensor = self.head(video_encoder.pool(video), audio_encoder.pool(audio))
        return log_probabilities

    def start_from(self, video: "OneStream", audio: "OneStream") -> None:
        """Take over the encoders of two models that were each trained alone on the same actors."""
        self.video.load_state_dict(video.encoder.state_dict())
        self.audio.load_state_dict(audio.encoder.state_dict())


class OneStream(nn.Module):
    """One encoder and a linear classifier; called like a two-stream model, it leaves the other input alone.

    Args:
        encoder: encoder of the one modality.
        modality: "video" or "audio".
        classes: number of emotions.
    """

    def __init__(self, encoder: nn.Module, modality: str, classes: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.modalities = (modality,)
        self.classify = nn.Linear(cast(Encoder, encoder).dim, classes)

    def forward(
        self, video: Float[Tensor, "B 3 T H W"] | None, audio: Float[Tensor, "B 13 S"] | None
    ) -> Float[Tensor, "B classes"]:
        """Log-probabilities of the emotions."""
        encoder = cast(Encoder, self.encoder)
        features = _check_video(video) if self.modalities == ("video",) else _check_audio(audio, encoder)
        for stage in encoder.stages:
            features = stage(features)
        scores: Tensor = self.classify(encoder.pool(features))
        return scores.float().log_softmax(dim=1)  # also under mixed precision
