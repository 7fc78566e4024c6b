"""The zoo: one entry a row of the paper's tables."""

import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import cast

from torch import nn

from cfnsr.console import say
from cfnsr.errors import InputError
from cfnsr.models.baselines import AS_BEGUN, SOLVERS, Solver, added, heard, seen, spliced
from cfnsr.models.encoders.cnn import AudioCNN
from cfnsr.models.encoders.erann import ERANN
from cfnsr.models.encoders.openface import OpenFaceEncoder
from cfnsr.models.encoders.resnext import ResNeXt3D
from cfnsr.models.encoders.speech import SpeechMixture
from cfnsr.models.exchanges.cross_modal import CrossModal, CrossModalMap, CrossModalMaps, CrossModalReleased
from cfnsr.models.exchanges.mmtm import MMTM
from cfnsr.models.exchanges.msaf import MSAF
from cfnsr.models.exchanges.silent import Silent
from cfnsr.models.exchanges.video_to_audio import VideoToAudio
from cfnsr.models.heads.compact_bilinear import CompactBilinear
from cfnsr.models.heads.concat import Concat, FreshConcat
from cfnsr.models.heads.concat_fc import ConcatFC, ConcatFCHeads
from cfnsr.models.heads.late import Averaging, Multiplicative
from cfnsr.models.streams import Encoder, OneStream, TwoStream

Model = OneStream | TwoStream
STAGES = 3
FUSIONS = ("none", "late", "early", "model")  # where the modalities meet

MakeExchange = Callable[[int, int], nn.Module]  # (video channels, audio channels) of a stage -> exchange
MakeHead = Callable[[int, int, int], nn.Module]  # (video dim, audio dim, classes) -> head


@dataclass(frozen=True)
class Settings:
    """The inputs and sizes of a model's encoders; the defaults are the paper's.

    Args:
        mfcc_steps: MFCC columns of a clip.
        width: scale of the large encoders' channels (ResNeXt, ERANN); 1/8 in the small preset.
        openface_features: values of an OpenFace track at each step; 35 are the action units alone.
        speech_layers: hidden states that the speech encoder gives, its embedding's included.
        speech_width: values of each of them at each step.
        video, audio: names of the encoders, one of `ENCODERS` each.
    """

    classes: int = 8
    mfcc_steps: int = 212
    width: float = 1.0
    openface_features: int = 35
    speech_layers: int = 5
    speech_width: int = 384
    video: str = "pixels"
    audio: str = "mfcc"

    def video_encoder(self) -> nn.Module:
        """Build the video encoder, with weights of its own at each call."""
        return self._encoder("video", self.video)

    def audio_encoder(self) -> nn.Module:
        """Build the audio encoder, likewise."""
        return self._encoder("audio", self.audio)

    def _encoder(self, modality: str, name: str) -> nn.Module:
        known = ENCODERS[modality]
        if name not in known:
            raise InputError(f"{modality} encoder {name!r} is unknown: expected one of {', '.join(known)}")
        return known[name](self)

    def fuse(self, *exchanges: MakeExchange, head: MakeHead = Concat) -> TwoStream:
        """Build a two-stream model of these encoders.

        Args:
            exchanges: made after the last stages, one each; at earlier stages the modalities do not talk.
            head: made over the pooled pair.
        """
        if len(exchanges) > STAGES:
            raise InputError(f"{len(exchanges)} exchanges: expected at most {STAGES}, one after each stage")
        video, audio = self.video_encoder(), self.audio_encoder()
        seen, heard = cast(Encoder, video), cast(Encoder, audio)
        silent: list[MakeExchange] = [Silent] * (STAGES - len(exchanges))
        makers = zip([*silent, *exchanges], seen.channels, heard.channels, strict=True)
        talking = [make(*channels) for make, *channels in makers]
        return TwoStream(video, audio, talking, head(seen.dim, heard.dim, self.classes))


def _erann(settings: Settings) -> ERANN:
    """ERANN of the paper, or a light one at other widths."""
    return ERANN() if settings.width == 1 else ERANN.light(settings.width)


# By modality. An encoder that is not its modality's first is named after the clip tensor that it reads.
ENCODERS: dict[str, dict[str, Callable[[Settings], nn.Module]]] = {
    "video": {
        "pixels": lambda settings: ResNeXt3D(width=settings.width),
        "openface": lambda settings: OpenFaceEncoder(settings.openface_features, settings.classes),
    },
    "audio": {
        "mfcc": lambda settings: AudioCNN(steps=settings.mfcc_steps),
        "speech": lambda settings: SpeechMixture(
            settings.speech_layers, settings.speech_width, settings.classes
        ),
        "log_mel": _erann,
    },
}
# Encoders that a model's name may choose, the paper's first. No exchange can take ERANN's maps.
CHOICES: dict[str, tuple[str, ...]] = {"video": ("pixels", "openface"), "audio": ("mfcc", "speech")}


@dataclass(frozen=True)
class Entry:
    """A named model: how it is built, the paper's name for its fusion, and the paper's figures for it.

    Args:
        name: with the encoders that it chooses, as `find` takes it.
        build: makes the model of settings that name `encoders`; the function `build` sees to that.
        fusion: "none", "late", "early" or "model", where the two modalities meet.
        paper_accuracy: accuracy as a fraction (Tables 1 and 2), None for a model that is not the paper's.
        paper_params: parameters in millions, likewise.
        modalities: input of the model: "video", "audio" or both.
        note: why the number of parameters is not the paper's.
        source: SHA-256 of the file that an entry of a user's own stood in when it was registered, so that a
            run is not resumed with other code under its name; empty for the package's own.
        encoders: names of its encoders, one a modality.
        fixed: whether it has these encoders alone, so that a name cannot choose others.
        solver: of a model that is solved and not trained by gradient.
        alone: of a model of two modalities, the models of one that it starts from, by their names without
            encoders.
    """

    name: str
    build: Callable[[Settings], Model]
    fusion: str
    paper_accuracy: float | None = None
    paper_params: float | None = None
    modalities: tuple[str, ...] = ("video", "audio")
    note: str = ""
    source: str = ""
    encoders: tuple[str, ...] = ("pixels", "mfcc")
    fixed: bool = False
    solver: Solver | None = None
    alone: tuple[str, str] = ("video", "audio")

    def __reduce__(self) -> tuple[Callable[[str], "Entry"], tuple[str]]:
        """Be pickled by name: a process of its own has the entry, and a plugin's function cannot be."""
        return find, (self.name,)

    @property
    def by_modality(self) -> dict[str, str]:
        """Encoder of each modality.

        >>> find("cfn_sr+speech").by_modality
        {'video': 'pixels', 'audio': 'speech'}
        """
        return dict(zip(self.modalities, self.encoders, strict=True))

    @property
    def starts_from(self) -> tuple[str, ...]:
        """Models of one modality whose encoders this one may be initialised from; a model of one has none.

        >>> find("cfn_sr+speech").starts_from
        ('video', 'audio+speech')
        """
        if len(self.modalities) == 1:
            return ()
        return tuple(
            _written(name, [encoder]) for name, encoder in zip(self.alone, self.encoders, strict=True)
        )


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
    encoders: tuple[str, ...] = (),
    solver: Solver | None = None,
    alone: tuple[str, str] = ("video", "audio"),
) -> Callable[[Build], Build]:
    """Register a function that builds a model from `Settings` under a name; see `Entry` for the rest.

    Args:
        encoders: of a model that has these alone; else the paper's, and a name may choose others.

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
        if not modalities or not set(modalities) <= set(CHOICES):
            raise InputError(f"modalities of model {name} are {modalities}: expected video, audio or both")
        ordered = tuple(modality for modality in CHOICES if modality in modalities)
        ENTRIES[name] = Entry(
            name,
            build,
            fusion,
            paper_accuracy,
            paper_params,
            ordered,
            note,
            _source_of(build),
            encoders or tuple(CHOICES[modality][0] for modality in ordered),
            bool(encoders),
            solver,
            alone,
        )
        return build

    return register


def _source_of(build: Build) -> str:
    """Hash (SHA-256) of the file a function was written in, if that is none of the package's."""
    code = getattr(build, "__code__", None)
    path = Path(code.co_filename) if code is not None else Path()
    if not path.is_file() or PACKAGE in path.resolve().parents:
        return ""
    return hashlib.sha256(path.read_bytes()).hexdigest()


Multiplication = partial(Multiplicative, beta=0)


@entry("video", fusion="none", paper_accuracy=0.6299, paper_params=25.88, modalities=("video",))
def _video(settings: Settings) -> Model:
    return OneStream(settings.video_encoder(), "video", settings.classes)


@entry("audio", fusion="none", paper_accuracy=0.5653, paper_params=0.03, modalities=("audio",))
def _audio(settings: Settings) -> Model:
    return OneStream(settings.audio_encoder(), "audio", settings.classes)


@entry("averaging", fusion="late", paper_accuracy=0.6882, paper_params=25.92)
def _averaging(settings: Settings) -> Model:
    return settings.fuse(head=Averaging)


@entry("multiplicative", fusion="late", paper_accuracy=0.7035, paper_params=25.92)
def _multiplicative(settings: Settings) -> Model:
    return settings.fuse(head=partial(Multiplicative, beta=0.3))


@entry("multiplication", fusion="late", paper_accuracy=0.7056, paper_params=25.92)
def _multiplication(settings: Settings) -> Model:
    return settings.fuse(head=Multiplication)


@entry(
    "concat_fc",
    fusion="early",
    paper_accuracy=0.7104,
    paper_params=26.87,
    note="One hidden layer of 256; the paper's count has room for the two streams' own classifiers besides, "
    "as concat_fc_heads has them.",
)
def _concat_fc(settings: Settings) -> Model:
    return settings.fuse(head=ConcatFC)


@entry(
    "mcbp",
    fusion="early",
    paper_accuracy=0.7132,
    paper_params=51.03,
    note="The source's sketch of 16,000, one linear classifier of it and one a stream add 0.16 M to the two "
    "encoders; the paper does not say what its further 25 M are.",
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
    encoders=("log_mel",),
)
def _eranns(settings: Settings) -> Model:
    return OneStream(settings.audio_encoder(), "audio", settings.classes)


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


# Not the paper's rows, but other readings of them, for comparison.


@entry("cfn_sr_map", fusion="model")
def _cfn_sr_map(settings: Settings) -> Model:
    """CFN-SR whose weights multiply the video map: eq. 8 without the sentence under it."""
    return settings.fuse(CrossModalMap)


@entry("cfn_sr_k_maps", fusion="model")
def _cfn_sr_k_maps(settings: Settings) -> Model:
    """CFN-SR whose k channels of eq. 7 are k maps; their vectors are averaged."""
    return settings.fuse(CrossModalMaps)


@entry("cfn_sr_released", fusion="model")
def _cfn_sr_released(settings: Settings) -> Model:
    """CFN-SR as its released code computes it, a clip at a time: no ReLU in the stem, a fresh classifier."""
    model = settings.fuse(CrossModalReleased, head=FreshConcat)
    if isinstance(model.video, ResNeXt3D):
        model.video.drop_stem_relu()
    return model


@entry("concat_fc_heads", fusion="early")
def _concat_fc_heads(settings: Settings) -> Model:
    """Concat + FC with the parameters that the paper reports: beside the hidden layer a head a stream."""
    return settings.fuse(head=ConcatFCHeads)


# Not the paper's either: OpenFace tracks and the states of a pretrained speech encoder.


@entry("cfn_sr_features", fusion="model", encoders=("openface", "speech"))
def _cfn_sr_features(settings: Settings) -> Model:
    """CFN-SR's block under a head that classifies each modality and multiplies the probabilities."""
    return settings.fuse(CrossModal, head=Multiplication)


# Not the paper's either: statistics of video and audio under a linear classifier, alone and fused.

for _name, _solver in SOLVERS.items():
    _alone = f"{_name}_video", f"{_name}_audio"
    entry(_alone[0], fusion="none", modalities=("video",), solver=_solver)(seen)
    entry(_alone[1], fusion="none", modalities=("audio",), solver=_solver)(heard)
    entry(_name, fusion="early", solver=_solver, alone=_alone)(spliced)
    entry(f"{_name}_late", fusion="late", solver=AS_BEGUN, alone=_alone)(added)


def list_models() -> list[str]:
    """Names of all models with the encoders they come with, in the order of the paper's tables.

    >>> list_models()[:2]
    ['video', 'audio']
    """
    return list(ENTRIES)


def base_name(name: str) -> str:
    """Return a model's name without its encoders; it need not be one of the zoo.

    >>> base_name("cfn_sr+openface+speech")
    'cfn_sr'
    """
    return name.partition("+")[0]


def encoders_of(name: str) -> dict[str, str]:
    """Encoder of each modality of a model.

    >>> encoders_of("audio"), encoders_of("cfn_sr+openface")
    ({'audio': 'mfcc'}, {'video': 'openface', 'audio': 'mfcc'})
    """
    return find(name).by_modality


def find(name: str) -> Entry:
    """Find the entry of a model, with the encoders that its name chooses: `cfn_sr+openface+speech`.

    Raises:
        InputError: for an unknown name, which lists the known ones; for an encoder that is unknown or not
            to be had with this model; and for a name that is not written as `with_encoders` would.
    """
    base, *chosen = name.split("+")
    if base not in ENTRIES:
        raise InputError(
            f"model {base!r} is unknown: expected one of {', '.join(ENTRIES)}; "
            "one of your own needs `cfnsr --plugin FILE.py`"
        )
    found = ENTRIES[base]
    for encoder in chosen:
        modality = next((modality for modality, known in CHOICES.items() if encoder in known), None)
        if modality is None:
            raise InputError(f"encoder {encoder!r} of model {name} is unknown: expected {_known()}")
        found = _having(found, base, modality, encoder)
    written = _written(base, () if found.fixed else found.encoders)
    if name != written:
        raise InputError(f"model {name!r}: expected {written}, video's encoder first and none of the paper's")
    return replace(found, name=name)


def with_encoders(name: str, *, video: str | None = None, audio: str | None = None) -> str:
    """Name a model with other encoders, as far as it has the modalities.

    Args:
        name: of a model; encoders that it chooses already stay.
        video, audio: names of encoders; None leaves the model's.

    Raises:
        InputError: for an unknown encoder, or a model that has another one for good.

    >>> [with_encoders(name, video="openface", audio="speech") for name in ("audio", "cfn_sr")]
    ['audio+speech', 'cfn_sr+openface+speech']
    """
    found = find(name)
    for modality, encoder in (("video", video), ("audio", audio)):
        if encoder is None:
            continue
        if encoder not in CHOICES[modality]:
            raise InputError(f"{modality} encoder {encoder!r} is unknown: expected {_known(modality)}")
        if modality in found.modalities:
            found = _having(found, name, modality, encoder)
    return name if found.fixed else _written(base_name(name), found.encoders)


def _having(found: Entry, name: str, modality: str, encoder: str) -> Entry:
    """Replace the paper's encoder in an entry by another one."""
    encoders = found.by_modality
    if modality not in encoders:
        raise InputError(f"model {name} has no {modality}: leave out its encoder {encoder}")
    has, paper = encoders[modality], CHOICES[modality][0]
    if has != encoder and (found.fixed or has != paper):
        raise InputError(f"model {name} has the {modality} encoder {has}: it cannot have {encoder}")
    return replace(found, encoders=tuple({**encoders, modality: encoder}.values()))


def _known(*modalities: str) -> str:
    """List the encoders to choose from, in words."""
    return ", or ".join(
        f"{' or '.join(CHOICES[modality])} ({modality})" for modality in modalities or tuple(CHOICES)
    )


def _written(base: str, encoders: Iterable[str]) -> str:
    """Write the name of a model of these encoders: the paper's are not named."""
    paper = {known[0] for known in CHOICES.values()}
    return "+".join([base, *(encoder for encoder in encoders if encoder not in paper)])


def create_model(
    name: str,
    *,
    classes: int = 8,
    mfcc_steps: int = 212,
    width: float = 1.0,
    openface_features: int = 35,
    speech_layers: int = 5,
    speech_width: int = 384,
) -> Model:
    """Build a model of the zoo; `model(video, audio)` gives `(B, classes)` log-probabilities.

    Args:
        name: one of `list_models()`, with other encoders than its own if they are named behind it:
            `cfn_sr+openface+speech`, `video+openface`, `cfn_sr+speech`.
        classes: number of emotions.
        mfcc_steps: MFCC columns of a clip; 212 are 2.45 s.
        width: scale of the large encoders' channels.
        openface_features: values of an OpenFace track at each step, for the encoder "openface".
        speech_layers: hidden states of each clip, for the encoder "speech"; Whisper tiny's 5.
        speech_width: values of each of them at each step; Whisper tiny's 384.

    Raises:
        InputError: for an unknown name or settings that no network can have.

    >>> sum(p.numel() for p in create_model("cfn_sr").parameters())
    26301417
    """
    return build(name, Settings(classes, mfcc_steps, width, openface_features, speech_layers, speech_width))


def build(name: str, settings: Settings) -> Model:
    """Build a model of the zoo from `Settings`, with the encoders in its name."""
    found = find(name)
    chosen = {"video": settings.video, "audio": settings.audio, **found.by_modality}
    model = found.build(replace(settings, video=chosen["video"], audio=chosen["audio"]))
    if not isinstance(model, OneStream | TwoStream):
        raise InputError(
            f"model {name} is built as {type(model).__name__}: its @entry function must return a model, "
            "such as settings.fuse(...)"
        )
    for modality, encoder in found.by_modality.items():
        if encoder != CHOICES[modality][0] and model.reads.get(modality, encoder) != encoder:
            raise InputError(
                f"model {name} reads {model.reads[modality]} and not {encoder}: its @entry function must "
                "make its encoders of the settings it is given"
            )
    return model


def count_parameters(model: nn.Module) -> int:
    """Count the trained values in a model."""
    return sum(parameter.numel() for parameter in model.parameters())


def choose_models(
    models: Sequence[str], tables: Sequence[int], *, video: str | None = None, audio: str | None = None
) -> list[str]:
    """List the named models and those of the paper's tables, each once in the order of the tables.

    Args:
        tables: of the paper, 1 or 2.
        video, audio: encoders that all of them get, as far as they have the modality; a row of a table with
            a fixed other one is left out.
    """
    for number in tables:
        if number not in TABLES:
            raise InputError(f"table {number}: expected one of the paper's tables, 1 or 2")
    wanted = {name for number in tables for _, name in TABLES[number]}
    of_tables = [name for name in list_models() if name in wanted]
    if not models and not of_tables:
        raise InputError("no model is named: expected some of `cfnsr models`, or --table 1 or 2")
    asked = {name: encoder for name, encoder in (("video", video), ("audio", audio)) if encoder is not None}
    chosen = [with_encoders(name, **asked) for name in models]
    for name in of_tables:
        own = encoders_of(name)
        if find(name).fixed and any(own.get(modality, want) != want for modality, want in asked.items()):
            say(f"{name} is left out: it has its own encoder {', '.join(own.values())}")
        else:
            chosen.append(with_encoders(name, **asked))
    for modality, encoder in asked.items():
        if not any(modality in encoders_of(name) for name in chosen):
            raise InputError(f"--{modality} {encoder}: {', '.join(chosen)} has no {modality}; leave it out")
    return list(dict.fromkeys(chosen))
