"""A model with all that stands before and behind it in one graph, from bytes to calibrated answers."""

from copy import deepcopy
from dataclasses import asdict, replace
from pathlib import Path

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from cfnsr.data import augment
from cfnsr.export.fourier import Fourier
from cfnsr.export.sound import LogMel, Mfcc
from cfnsr.features.base import FEATURES
from cfnsr.features.spec import ModelSpec
from cfnsr.models.entries import Model
from cfnsr.models.heads.compact_bilinear import CompactBilinear
from cfnsr.models.settings import Settings
from cfnsr.models.shapes import Scores, Vector
from cfnsr.models.streams import TwoStream
from cfnsr.training.checkpoint import config_of, load_model


class Pictures(nn.Module):
    """Convert face crops, as a camera or a decoder gives them, to the input of an encoder of pictures."""

    def __init__(self) -> None:
        super().__init__()
        self.mean, self.deviation = (
            nn.Buffer(255 * torch.tensor(values).view(1, 3, 1, 1, 1), persistent=False)
            for values in (augment.RGB_MEAN, augment.RGB_STD)
        )

    def forward(self, frames: UInt8[Tensor, "B T H W 3"]) -> Float[Tensor, "B 3 T H W"]:
        return (frames.permute(0, 4, 1, 2, 3).float() - self.mean) / self.deviation


class ByProducts(CompactBilinear):
    """The head of MCBP with its Fourier transforms as matrix products, see `Fourier`."""

    def __init__(self, head: CompactBilinear) -> None:
        classes, width = head.classify.weight.shape
        dims = len(head.video_sketch.places), len(head.audio_sketch.places)
        super().__init__(*dims, classes, sketch_dim=width)
        self.load_state_dict(head.state_dict())
        self.fourier = Fourier(width)

    def pool(self, video: Vector, audio: Vector) -> Float[Tensor, "B sketch"]:
        """Sketch of the outer product: the two sketches convolved."""
        (a, b), (c, d) = self.fourier(self.video_sketch(video)), self.fourier(self.audio_sketch(audio))
        real, imaginary = a * c - b * d, a * d + b * c
        # Back again by the same transform: of real values the spectrum's real part is even and its
        # imaginary part odd, so the real part of the transform has the one and its imaginary part the other.
        real, imaginary = self.fourier(real + imaginary)
        sketch: Tensor = (real + imaginary) / self.sketch_dim
        return sketch


# What stands before the model, of an input that the graph does not take as the model reads it.
BEFORE: dict[str, type[nn.Module]] = {"video": Pictures, "audio": Mfcc, "log_mel": LogMel}


class Graph(nn.Module):
    """A loaded model as it is exported.

    Inputs, those of them that `spec.inputs` names, in its order: `frames` uint8 (B, T, H, W, 3), RGB face
    crops; `openface` float32 (B, F, T), a track at the model's number of steps; `expression` likewise, an
    expression network's values; `waveform` float32 (B, N), mono at 44.1 kHz, full scale 1; `speech` float32
    (B, speeds, layers, S, width), a speech encoder's states at each speed. Output: calibrated
    log-probabilities (B, classes); where a waveform is an input also its features, so that their place in the
    graph gets a name.
    """

    def __init__(self, model: Model, spec: ModelSpec) -> None:
        super().__init__()
        model = deepcopy(model).cpu().float()
        if isinstance(model, TwoStream) and isinstance(model.head, CompactBilinear):
            model.head = ByProducts(model.head)
        self.model = model
        self.temperature = spec.temperature
        self.reads = dict(model.reads)
        self.several = any(FEATURES[name].several for name in self.reads.values())
        self.before = nn.ModuleDict(
            {modality: BEFORE.get(name, nn.Identity)() for modality, name in self.reads.items()}
        )
        self.hears = self.reads.get("audio") in BEFORE
        self.eval()

    def forward(self, first: Tensor, second: Tensor | None = None) -> tuple[Tensor, ...]:
        given = dict(zip(self.reads, (first, second), strict=False))
        features = {modality: self.before[modality](tensor) for modality, tensor in given.items()}
        video, audio = features.get("video"), features.get("audio")
        if audio is None or not self.several:
            log_probabilities = self.model(video, audio)
        else:  # the mean over the speeds, as in training
            speeds = audio.shape[1]
            if video is not None:
                video = video.repeat_interleave(speeds, dim=0)
            each = self.model(video, audio.flatten(0, 1))
            log_probabilities = each.unflatten(0, (-1, speeds)).mean(dim=1)
        scores: Scores = (log_probabilities / self.temperature).log_softmax(dim=1)
        return (scores, features["audio"]) if self.hears else (scores,)


def describe(model: Model | str | Path) -> tuple[Model, ModelSpec]:
    """Return a model, loaded where it is the folder of a checkpoint, and the description of its export."""
    if isinstance(model, str | Path):
        model = load_model(model)
    config = config_of(model)
    settings = {**asdict(Settings()), **config.settings}
    return model, replace(config, reads=dict(model.reads), settings=settings)
