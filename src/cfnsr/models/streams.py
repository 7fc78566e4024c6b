"""The forward pass of every model: two streams with exchanges between their stages, or one stream alone."""

from collections.abc import Iterable
from typing import Self

import torch
from torch import Tensor, nn

from cfnsr.errors import InputError
from cfnsr.models.encoders.discriminant import Discriminant
from cfnsr.models.shapes import Scores, Vector


class Encoder(nn.Module):
    """One stream of a model: three stages, and a pooling of the last map to one vector."""

    reads: str  # the tensor of a prepared clip that it takes
    shape: tuple[int | None, ...]  # of that tensor without the batch; None for a side of any length
    expected: str  # the same in words, for who gives another
    stages: nn.ModuleList
    channels: tuple[int, ...]  # of the map after each stage
    dim: int  # of the pooled vector
    score_channels = 0  # its last values that are scores of the classes already

    def check(self, given: Tensor | None) -> Tensor:
        """Return the input as it came; raise `InputError` for another shape."""
        shape = () if given is None else tuple(given.shape[1:])
        fits = [have == want if want else have > 0 for have, want in zip(shape, self.shape, strict=False)]
        if given is None or len(shape) != len(self.shape) or not all(fits):
            found = "none" if given is None else tuple(given.shape)
            raise InputError(f"{self.reads} is {found}: expected {self.expected}")
        return given

    def pool(self, features: Tensor) -> Vector:
        """Make one vector of the last map."""
        raise NotImplementedError


class TwoStream(nn.Module):
    """A video and an audio encoder, an exchange after each stage, and a head over the pooled pair.

    Args:
        video, audio: encoders, of as many stages each.
        exchanges: one module a stage, `(video_map, audio_map) -> (video_map, audio_map)`.
        head: `(video_vector, audio_vector) -> (B, classes)` log-probabilities.
    """

    def __init__(
        self, video: Encoder, audio: Encoder, exchanges: Iterable[nn.Module], head: nn.Module
    ) -> None:
        super().__init__()
        self.video = video
        self.audio = audio
        self.exchanges = nn.ModuleList(exchanges)
        self.head = head
        self.initialised: list[nn.Parameter] = []  # those that were trained before
        self.frozen = False
        self.reads = {"video": video.reads, "audio": audio.reads}

    def forward(self, video: Tensor, audio: Tensor) -> Scores:
        """Log-probabilities of the emotions. A clip's are its own: they do not depend on the batch."""
        video, audio = self.video.check(video), self.audio.check(audio)
        if video.shape[0] != audio.shape[0]:  # not len(): an exported graph keeps any number of clips
            raise InputError(
                f"{video.shape[0]} clips of video and {audio.shape[0]} of audio: expected as many of each"
            )
        for video_stage, audio_stage, exchange in zip(
            self.video.stages, self.audio.stages, self.exchanges, strict=True
        ):
            video, audio = exchange(video_stage(video), audio_stage(audio))
        log_probabilities: Tensor = self.head(self.video.pool(video), self.audio.pool(audio))
        return log_probabilities

    def start_from(self, video: "OneStream", audio: "OneStream") -> None:
        """Initialise from two models that were each trained alone on the same actors.

        Their encoders become this model's, and their classifiers those of a head with room for them
        (`start_from(video, audio)`). What an exchange or a head adds to them begins as nothing, on average
        (`start_neutral()`), so the rows of a table start as the sum of their parts.
        """
        self.video.load_state_dict(video.encoder.state_dict())
        self.audio.load_state_dict(audio.encoder.state_dict())
        initialised: list[nn.Module] = [self.video, self.audio]
        for module in self.head.modules():
            if (start_from := getattr(module, "start_from", None)) is not None:
                start_from(video.classify, audio.classify)
                initialised.append(module)
        for module in self.modules():
            if isinstance(module, Discriminant):
                module.in_training = True
            if (start_neutral := getattr(module, "start_neutral", None)) is not None:
                start_neutral()
        self.initialised = [parameter for module in initialised for parameter in module.parameters()]

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

    def __init__(self, encoder: Encoder, modality: str, classes: int) -> None:
        super().__init__()
        self.encoder, self.modality = encoder, modality
        self.reads = {modality: encoder.reads}
        self.classify = nn.Linear(encoder.dim, classes)
        if channels := getattr(encoder, "score_channels", 0):  # it begins with the scores as they are
            with torch.no_grad():
                self.classify.weight[:, -channels:] = torch.eye(classes, channels)

    def forward(self, video: Tensor | None, audio: Tensor | None) -> Scores:
        """Log-probabilities of the emotions."""
        features = self.encoder.check({"video": video, "audio": audio}[self.modality])
        for stage in self.encoder.stages:
            features = stage(features)
        scores: Tensor = self.classify(self.encoder.pool(features))
        return scores.float().log_softmax(dim=1)
