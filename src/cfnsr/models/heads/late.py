"""Late fusion: each stream classifies alone, and a rule without weights joins the two answers."""

import math

import torch
from torch import Tensor, nn

from cfnsr.errors import InputError
from cfnsr.models.shapes import Scores, Vector

LEAST_DOUBT = 1e-6  # the slope of x ** beta has no bound at 0


class StreamHeads(nn.Module):
    """One linear classifier for each stream.

    In prediction a vector of NaN is one that is missing, and all classes are alike; in training it is NaN.

    >>> video, audio = StreamHeads(2, 3, 8)(torch.rand(1, 2), torch.rand(1, 3))
    >>> round(video.exp().sum().item(), 5), round(audio.exp().sum().item(), 5)
    (1.0, 1.0)
    """

    def __init__(self, video_dim: int, audio_dim: int, classes: int) -> None:
        super().__init__()
        self.video = nn.Linear(video_dim, classes)
        self.audio = nn.Linear(audio_dim, classes)

    def start_from(self, video: nn.Linear, audio: nn.Linear) -> None:
        """Copy the classifiers of two models that were each trained alone."""
        self.video.load_state_dict(video.state_dict())
        self.audio.load_state_dict(audio.state_dict())

    def forward(self, video: Vector, audio: Vector) -> tuple[Scores, Scores]:
        """Log-probabilities by video alone and by audio alone."""
        by_video, by_audio = self.video(video).float(), self.audio(audio).float()
        if not self.training:  # where NaN is a network that diverged
            by_video, by_audio = (torch.where(each.isnan(), 0.0, each) for each in (by_video, by_audio))
        return by_video.log_softmax(dim=1), by_audio.log_softmax(dim=1)


class Averaging(nn.Module):
    """Mean of the two streams' probabilities (Table 1, "Averaging").

    >>> round(Averaging(2, 3, 8)(torch.rand(1, 2), torch.rand(1, 3)).exp().sum().item(), 5)
    1.0
    """

    def __init__(self, video_dim: int, audio_dim: int, classes: int) -> None:
        super().__init__()
        self.streams = StreamHeads(video_dim, audio_dim, classes)

    def forward(self, video: Vector, audio: Vector) -> Scores:
        by_video, by_audio = self.streams(video, audio)
        return torch.logaddexp(by_video, by_audio) - math.log(2)


class Multiplicative(nn.Module):
    """Each stream's log-probability of a class counts as far as the other doubts that class.

    The score is `v (1 - exp(a)) ** beta + a (1 - exp(v)) ** beta` of the log-probabilities v and a: a stream
    that is sure of a class releases the other from finding it. `beta` 0 leaves the product of the two
    probabilities. Liu et al. train the scores of the true class alone; here the scores are normalised over
    the classes, so that the same loss serves every row.

    Args:
        beta: how much the doubt counts, 0 or more (Table 1: 0.3 in "Multiplicative", 0 in "Multiplication").

    Source: Liu et al. 2018, "Learn to combine modalities in multimodal deep learning", sec. 3.

    >>> round(Multiplicative(2, 3, 8, beta=0.3)(torch.rand(1, 2), torch.rand(1, 3)).exp().sum().item(), 5)
    1.0
    """

    def __init__(self, video_dim: int, audio_dim: int, classes: int, *, beta: float) -> None:
        super().__init__()
        if not beta >= 0:
            raise InputError(f"beta is {beta}: expected 0 or more; the paper's rows have 0.3 and 0")
        self.streams = StreamHeads(video_dim, audio_dim, classes)
        self.beta = beta

    def _doubt(self, log_probabilities: Scores) -> Scores:
        doubt: Tensor = (-torch.expm1(log_probabilities)).clamp(min=LEAST_DOUBT) ** self.beta
        return doubt

    def forward(self, video: Vector, audio: Vector) -> Scores:
        by_video, by_audio = self.streams(video, audio)
        scores: Tensor = by_video * self._doubt(by_audio) + by_audio * self._doubt(by_video)
        return scores.log_softmax(dim=1)
