"""The zoo: one entry a row of the paper's tables."""

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from torch import nn

from cfnsr.errors import InputError
from cfnsr.models.encoders.cnn import AudioCNN
from cfnsr.models.encoders.erann import ERANN
from cfnsr.models.encoders.resnext import ResNeXt3D
from cfnsr.models.exchanges.cross_modal import CrossModal
from cfnsr.models.exchanges.mmtm import MMTM
from cfnsr.models.exchanges.msaf import MSAF
from cfnsr.models.exchanges.silent import Silent
from cfnsr.models.exchanges.video_to_audio import VideoToAudio
from cfnsr.models.heads.compact_bilinear import CompactBilinear
from cfnsr.models.heads.concat import Concat
from cfnsr.models.heads.concat_fc import ConcatFC
from cfnsr.models.heads.late import Averaging, Multiplicative
from cfnsr.models.streams import OneStream, TwoStream

Model = OneStream | TwoStream
STAGES = 3
FUSIONS = ("none", "late", "early", "model")  # where the modalities meet

MakeExchange = Callable[[int, int], nn.Module]  # (video channels, audio channels) of a stage -> exchange
MakeHead = Callable[[int, int, int], nn.Module]  # (video dim, audio dim, classes) -> head


@dataclass(frozen=True)
class Settings:
    """What the encoders of a model are built for; the defaults are the paper's.

    Args:
        classes: number of emotions.
        mfcc_steps: MFCC columns of a clip.
        width: scale of the large encoders' channels (ResNeXt, ERANN); 1/8 in the small preset.
    """

    classes: int = 8
    mfcc_steps: int = 212
    width: float = 1.0

    def video(self) -> ResNeXt3D:
        """The encoder of the pictures."""
        return ResNeXt3D(width=self.width)

    def audio(self) -> AudioCNN:
        """The encoder of the sound."""
        return AudioCNN(steps=self.mfcc_steps)

    def spectrogram(self) -> ERANN:
        """The encoder of the sound's log-mel spectrogram: ERANNs', or a light one of it at other widths."""
        return ERANN() if self.width == 1 else ERANN.light(self.width)

    def fuse(self, *exchanges: MakeExchange, head: MakeHead = Concat) -> TwoStream:
        """A two-stream model of these encoders.

        Args:
            exchanges: made after the last stages, one each; at earlier stages the modalities do not talk.
            head: made over the pooled pair.
        """
        if len(exchanges) > STAGES:
            raise InputError(f"{len(exchanges)} exchanges: expected at most {STAGES}, one after each stage")
        video, audio = self.video(), self.audio()
        silent: list[MakeExchange] = [Silent] * (STAGES - len(exchanges))
        makers = zip([*silent, *exchanges], video.channels, audio.channels, strict=True)
        talking = [make(*channels) for make, *channels in makers]
        return TwoStream(video, audio, talking, head(video.dim, audio.dim, self.classes))


@dataclass(frozen=True)
class Entry:
    """A named model: how it is built, what the paper calls its fusion, and the paper's figures for it.

    Args:
        fusion: "none", "late", "early" or "model", where the two modalities meet.
        paper_accuracy: accuracy as a fraction (Tables 1 and 2), None for a model that is not the paper's.
        paper_params: parameters in millions, likewise.
        modalities: what the model looks at; one that has both starts from the models named after them.
        note: why the number of parameters is not the paper's.
        source: SHA-256 of the file that an entry of a user's own stood in when it was registered, so that a
            run is not resumed with other code under its name; empty for the package's own.
    """

    build: Callable[[Settings], Model]
    fusion: str
    paper_accuracy: float | None = None
    paper_params: float | None = None
    modalities: tuple[str, ...] = ("video", "audio")
    note: str = ""
    source: str = ""


PACKAGE = Path(__file__).resolve().parents[1]
ENTRIES: dict[str, Entry] = {}
# The paper's two tables: what each row is called there, and its model here.
TABLES: dict[int, tuple[tuple[str, str], ...]] = {
    1: (
        ("3D ResNeXt-50", "video"),
        ("1D CNN", "audio"),
        ("Averaging", "averaging"),
        ("Multiplicative (β = 0.3)", "multiplicative"),
        ("Multiplication", "multiplication"),
        ("Concat + FC", "concat_fc"),
        ("MCBP", "mcbp"),
        ("MMTM", "mmtm"),
        ("MSAF", "msaf"),
        ("ERANNs", "eranns"),
        ("CFN-SR", "cfn_sr"),
    ),
    2: (
        ("w/o cross-modal blocks", "cfn_sr_no_cross_modal"),
        ("V→A cross-modal blocks", "cfn_sr_video_to_audio"),
        ("A→V cross-modal blocks", "cfn_sr"),
        ("w/o self-attention", "cfn_sr_no_self_attention"),
        ("w/o residual", "cfn_sr_no_residual"),
        ("CFN-SR", "cfn_sr"),
    ),
}

Build = Callable[[Settings], Model]


def entry(
    name: str,
    *,
    fusion: str,
    paper_accuracy: float | None = None,
    paper_params: float | None = None,
    modalities: tuple[str, ...] = ("video", "audio"),
    note: str = "",
) -> Callable[[Build], Build]:
    """Register a function that builds a model from `Settings` under a name; see `Entry` for the rest.

    Raises:
        InputError: when the name is taken, or cannot be a folder's name.
    """

    def register(build: Build) -> Build:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name):
            raise InputError(f"model name {name!r}: expected letters, digits, _ and -, as in cfn_sr")
        if fusion not in FUSIONS:
            raise InputError(f"fusion of model {name} is {fusion!r}: expected one of {', '.join(FUSIONS)}")
        if name in ENTRIES:
            raise InputError(f"model {name!r} is registered already: choose another name")
        ENTRIES[name] = Entry(
            build, fusion, paper_accuracy, paper_params, modalities, note, _source_of(build)
        )
        return build

    return register


def _source_of(build: Build) -> str:
    """SHA-256 of the file a function was written in, if that is none of the package's."""
    code = getattr(build, "__code__", None)
    path = Path(code.co_filename) if code is not None else Path()
    if not path.is_file() or PACKAGE in path.resolve().parents:
        return ""
    return hashlib.sha256(path.read_bytes()).hexdigest()


Multiplication = partial(Multiplicative, beta=0)


@entry("video", fusion="none", paper_accuracy=0.6299, paper_params=25.88, modalities=("video",))
def _video(settings: Settings) -> Model:
    return OneStream(settings.video(), "video", settings.classes)


@entry("audio", fusion="none", paper_accuracy=0.5653, paper_params=0.03, modalities=("audio",))
def _audio(settings: Settings) -> Model:
    return OneStream(settings.audio(), "audio", settings.classes)


@entry("averaging", fusion="late", paper_accuracy=0.6882, paper_params=25.92)
def _averaging(settings: Settings) -> Model:
    return settings.fuse(head=Averaging)


@entry("multiplicative", fusion="late", paper_accuracy=0.7035, paper_params=25.92)
def _multiplicative(settings: Settings) -> Model:
    return settings.fuse(head=partial(Multiplicative, beta=0.3))


@entry("multiplication", fusion="late", paper_accuracy=0.7056, paper_params=25.92)
def _multiplication(settings: Settings) -> Model:
    return settings.fuse(head=Multiplication)


@entry("concat_fc", fusion="early", paper_accuracy=0.7104, paper_params=26.87)
def _concat_fc(settings: Settings) -> Model:
    return settings.fuse(head=ConcatFC)


@entry(
    "mcbp",
    fusion="early",
    paper_accuracy=0.7132,
    paper_params=51.03,
    note="The source's sketch of 16,000 and one linear classifier add 0.13 M to the two encoders; the paper "
    "does not say what its further 25 M are.",
)
def _mcbp(settings: Settings) -> Model:
    return settings.fuse(head=CompactBilinear)


@entry(
    "mmtm",
    fusion="model",
    paper_accuracy=0.7312,
    paper_params=31.97,
    note="After each of the three stages, ratio 4, a classifier a stream; the paper names neither places nor "
    "ratio.",
)
def _mmtm(settings: Settings) -> Model:
    return settings.fuse(MMTM, MMTM, MMTM, head=Multiplication)


@entry("msaf", fusion="model", paper_accuracy=0.7486, paper_params=25.94)
def _msaf(settings: Settings) -> Model:
    blocks = partial(MSAF, block=16), partial(MSAF, block=32)
    return settings.fuse(*blocks, head=Multiplication)


@entry(
    "eranns",
    fusion="none",
    paper_accuracy=0.7480,
    modalities=("audio",),
    note="From nothing; the 74.80 of its own paper (Verbitskiy et al. 2021) is from a pretrained network, "
    "as far as we can tell, on other folds.",
)
def _eranns(settings: Settings) -> Model:
    return OneStream(settings.spectrogram(), "audio", settings.classes)


@entry("cfn_sr", fusion="model", paper_accuracy=0.7576, paper_params=26.30)
def _cfn_sr(settings: Settings) -> Model:
    return settings.fuse(CrossModal)


# Table 2: each states only what differs from CFN-SR.


@entry("cfn_sr_no_cross_modal", fusion="model", paper_accuracy=0.7350, paper_params=25.92)
def _no_cross_modal(settings: Settings) -> Model:
    return settings.fuse()


@entry(
    "cfn_sr_video_to_audio",
    fusion="model",
    paper_accuracy=0.7415,
    paper_params=25.67,
    note="The same block with the roles swapped; the paper's count is less than that of its two encoders.",
)
def _video_to_audio(settings: Settings) -> Model:
    return settings.fuse(VideoToAudio)


@entry("cfn_sr_no_self_attention", fusion="model", paper_accuracy=0.7386, paper_params=26.05)
def _no_self_attention(settings: Settings) -> Model:
    return settings.fuse(partial(CrossModal, depth=0))


@entry("cfn_sr_no_residual", fusion="model", paper_accuracy=0.7533, paper_params=26.30)
def _no_residual(settings: Settings) -> Model:
    return settings.fuse(partial(CrossModal, residual=False))


def list_models() -> list[str]:
    """Names of all models, in the order of the paper's tables.

    >>> list_models()[:2]
    ['video', 'audio']
    """
    return list(ENTRIES)


def find(name: str) -> Entry:
    """The entry of a model; an unknown name lists the known ones."""
    if name not in ENTRIES:
        raise InputError(
            f"model {name!r} is unknown: expected one of {', '.join(ENTRIES)}; "
            "one of your own needs `cfnsr --plugin FILE.py`"
        )
    return ENTRIES[name]


def create_model(name: str, *, classes: int = 8, mfcc_steps: int = 212, width: float = 1.0) -> Model:
    """Build a model of the zoo; `model(video, audio)` gives `(B, classes)` log-probabilities.

    Args:
        name: one of `list_models()`.
        classes: number of emotions.
        mfcc_steps: MFCC columns of a clip; 212 are 2.45 s.
        width: scale of the large encoders' channels.

    Raises:
        InputError: for an unknown name or settings that no network can have.

    >>> sum(p.numel() for p in create_model("cfn_sr").parameters())
    26301417
    """
    return build(name, Settings(classes, mfcc_steps, width))


def build(name: str, settings: Settings) -> Model:
    """Build a model of the zoo from `Settings`."""
    model = find(name).build(settings)
    if not isinstance(model, OneStream | TwoStream):
        raise InputError(
            f"model {name} is built as {type(model).__name__}: its @entry function must return a model, "
            "such as settings.fuse(...)"
        )
    return model


def count_parameters(model: nn.Module) -> int:
    """Number of trained values in a model."""
    return sum(parameter.numel() for parameter in model.parameters())
