"""The zoo: one entry a row of the paper's tables."""

from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch
from torch import nn

from cfnsr.errors import InputError
from cfnsr.models.encoders.cnn import AudioCNN
from cfnsr.models.encoders.resnext import ResNeXt3D
from cfnsr.models.exchanges.cross_modal import CrossModal
from cfnsr.models.exchanges.silent import Silent
from cfnsr.models.heads.concat import Concat
from cfnsr.models.streams import OneStream, TwoStream

Model = OneStream | TwoStream


@dataclass(frozen=True)
class Settings:
    """What the encoders of a model are built for; the defaults are the paper's.

    Args:
        classes: number of emotions.
        mfcc_steps: MFCC columns of a clip.
        video_width: scale of the video encoder's channels; 1/8 in the small preset.
    """

    classes: int = 8
    mfcc_steps: int = 212
    video_width: float = 1.0

    def video(self) -> ResNeXt3D:
        return ResNeXt3D(width=self.video_width)

    def audio(self) -> AudioCNN:
        return AudioCNN(steps=self.mfcc_steps)


@dataclass(frozen=True)
class Entry:
    """A named model: how it is built, what the paper calls its fusion, and the paper's figures for it.

    Args:
        fusion: "none", "late", "early" or "model", where the two modalities meet.
        paper_accuracy: accuracy as a fraction (Tables 1 and 2), None for a model that is not the paper's.
        paper_params: parameters in millions, likewise.
        modalities: what the model looks at; one that has both starts from the models named after them.
    """

    build: Callable[[Settings], Model]
    fusion: str
    paper_accuracy: float | None = None
    paper_params: float | None = None
    modalities: tuple[str, ...] = ("video", "audio")


ENTRIES: dict[str, Entry] = {}


def entry(
    name: str,
    *,
    fusion: str,
    paper_accuracy: float | None = None,
    paper_params: float | None = None,
    modalities: tuple[str, ...] = ("video", "audio"),
) -> Callable[[Callable[[Settings], Model]], Callable[[Settings], Model]]:
    """Register a function that builds a model from `Settings` under a name."""

    def register(build: Callable[[Settings], Model]) -> Callable[[Settings], Model]:
        if name in ENTRIES:
            raise InputError(f"model {name!r} is registered already: choose another name")
        ENTRIES[name] = Entry(build, fusion, paper_accuracy, paper_params, modalities)
        return build

    return register


@entry("video", fusion="none", paper_accuracy=0.6299, paper_params=25.88, modalities=("video",))
def _video(settings: Settings) -> Model:
    return OneStream(settings.video(), "video", settings.classes)


@entry("audio", fusion="none", paper_accuracy=0.5653, paper_params=0.03, modalities=("audio",))
def _audio(settings: Settings) -> Model:
    return OneStream(settings.audio(), "audio", settings.classes)


@entry("cfn_sr", fusion="model", paper_accuracy=0.7576, paper_params=26.30)
def _cfn_sr(settings: Settings) -> Model:
    video, audio = settings.video(), settings.audio()
    cross_modal = CrossModal(video.channels[-1], audio.channels[-1])
    head = Concat(video.dim, audio.dim, settings.classes)
    return TwoStream(video, audio, (Silent(), Silent(), cross_modal), head)


def list_models() -> list[str]:
    """Names of all models, in the order of the paper's tables.

    >>> list_models()[:2]
    ['video', 'audio']
    """
    return list(ENTRIES)


def find(name: str) -> Entry:
    """The entry of a model; an unknown name lists the known ones."""
    if name not in ENTRIES:
        raise InputError(f"model {name!r} is unknown: expected one of {', '.join(ENTRIES)}")
    return ENTRIES[name]


def create_model(name: str, *, classes: int = 8, mfcc_steps: int = 212, video_width: float = 1.0) -> Model:
    """Build a model of the zoo; `model(video, audio)` gives `(B, classes)` log-probabilities.

    Args:
        name: one of `list_models()`.
        classes: number of emotions.
        mfcc_steps: MFCC columns of a clip; 212 are 2.45 s.
        video_width: scale of the video encoder's channels.

    Raises:
        InputError: for an unknown name or settings that no network can have.

    >>> sum(p.numel() for p in create_model("cfn_sr").parameters())
    26301417
    """
    return find(name).build(Settings(classes, mfcc_steps, video_width))


def count_parameters(model: nn.Module) -> int:
    """Number of trained values in a model."""
    return sum(parameter.numel() for parameter in model.parameters())


@dataclass(frozen=True)
class Row:
    """One row of `cfnsr models`: ours beside the paper's."""

    name: str
    params: int
    paper_params: float | None
    paper_accuracy: float | None
    fusion: str


def table() -> list[dict[str, object]]:
    """Every model with its parameter count beside the paper's (millions) and the paper's accuracy."""
    rows = []
    for name, found in ENTRIES.items():
        with torch.device("meta"):  # shapes alone: counting needs no memory and no initial values
            params = count_parameters(found.build(Settings()))
        rows.append(asdict(Row(name, params, found.paper_params, found.paper_accuracy, found.fusion)))
    return rows
