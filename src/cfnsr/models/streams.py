"""The forward pass of every model: two streams with exchanges between their stages, or one stream alone."""

from collections.abc import Iterable
from typing import Protocol, Self, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cfnsr.errors import InputError
from cfnsr.models.encoders.discriminant import Discriminant


class Encoder(Protocol):
    """The interface of a stream: three stages, their channels, and a pooling to one vector of width `dim`.

    `reads` names the tensor of a prepared clip that it takes, and `check` refuses another shape of it.
    """

    reads: str
    stages: nn.ModuleList
    channels: tuple[int, ...]
    dim: int

    def check(self, features: Tensor | None) -> Tensor: ...

    def pool(self, features: Tensor) -> Tensor: ...


class TwoStream(nn.Module):
    """A video and an audio encoder, an exchange after each stage, and a head over the pooled pair.

    Args:
        video, audio: encoders, of as many stages each.
        exchanges: one module a stage, `(video_map, audio_map) -> (video_map, audio_map)`.
        head: `(video_vector, audio_vector) -> (B, classes)` log-probabilities.
    """

    def __init__(
        self, video: nn.Module, audio: nn.Module, exchanges: Iterable[nn.Module], head: nn.Module
    ) -> None:
        super().__init__()
        self.video = video
        self.audio = audio
        self.exchanges = nn.ModuleList(exchanges)
        self.head = head
        self.taken_over: list[nn.Parameter] = []  # those that were trained before
        self.frozen = False
        self.reads = {"video": cast(Encoder, video).reads, "audio": cast(Encoder, audio).reads}

    def forward(
        self, video: Float[Tensor, "B 3 T H W"], audio: Float[Tensor, "B 13 S"]
    ) -> Float[Tensor, "B classes"]:
        """Log-probabilities of the emotions. A clip's are its own: they do not depend on the batch."""
        video_encoder, audio_encoder = cast(Encoder, self.video), cast(Encoder, self.audio)
        video, audio = video_encoder.check(video), audio_encoder.check(audio)
        if video.shape[0] != audio.shape[0]:  # not len(): an exported graph keeps any number of clips
            raise InputError(
                f"{video.shape[0]} clips of video and {audio.shape[0]} of audio: expected as many of each"
            )
        for video_stage, audio_stage, exchange in zip(
            video_encoder.stages, audio_encoder.stages, self.exchanges, strict=True
        ):
            video, audio = exchange(video_stage(video), audio_stage(audio))
        log_probabilities: Tensor = self.head(video_encoder.pool(video), audio_encoder.pool(audio))
        return log_probabilities

    def start_from(self, video: "OneStream", audio: "OneStream") -> None:
        """Initialise from two models that were each trained alone on the same actors.

        Their encoders become this model's, and their classifiers those of a head with room for them
        (`start_from(video, audio)`). What an exchange or a head adds to them begins as nothing, on average
        (`start_neutral()`), so the rows of a table start as the sum of their parts.
        """
        taken: list[nn.Module] = [self.video, self.audio]
        self.video.load_state_dict(video.encoder.state_dict())
        self.audio.load_state_dict(audio.encoder.state_dict())
        for module in self.head.modules():
            take_over = getattr(module, "start_from", None)
            if take_over is not None:
                take_over(video.classify, audio.classify)
                taken.append(module)
        for module in self.modules():
            if isinstance(module, Discriminant):
                module.speaks = True
            start_neutral = getattr(module, "start_neutral", None)
            if start_neutral is not None:
                start_neutral()
        self.taken_over = [parameter for module in taken for parameter in module.parameters()]

    def freeze(self) -> None:
        """Leave the encoders as they are, in training too."""
        self.frozen = True
        self.video.requires_grad_(False)
        self.audio.requires_grad_(False)

    def train(self, mode: bool = True) -> Self:
        """Set the mode of every module; frozen encoders stay in evaluation."""
        super().train(mode)
        if self.frozen:
            self.video.eval()
            self.audio.eval()
        return self


class OneStream(nn.Module):
    """One encoder and a linear classifier; called like a two-stream model, it ignores the other input.

    Args:
        modality: "video" or "audio".
    """

    def __init__(self, encoder: nn.Module, modality: str, classes: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.reads = {modality: cast(Encoder, encoder).reads}
        self.classify = nn.Linear(cast(Encoder, encoder).dim, classes)
        judged = getattr(encoder, "judged", 0)  # the last values of the pooled vector are scores already
        if judged:
            with torch.no_grad():
                self.classify.weight[:, -judged:] = torch.eye(classes, judged)

    def forward(
        self, video: Float[Tensor, "B 3 T H W"] | None, audio: Float[Tensor, "B 13 S"] | None
    ) -> Float[Tensor, "B classes"]:
        """Log-probabilities of the emotions."""
        encoder = cast(Encoder, self.encoder)
        features = encoder.check(video if "video" in self.reads else audio)
        for stage in encoder.stages:
            features = stage(features)
        scores: Tensor = self.classify(encoder.pool(features))
        return scores.float().log_softmax(dim=1)  # also under mixed precision
