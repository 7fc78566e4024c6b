"""The zoo: build a model by its name, and register one of your own."""

import hashlib
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from cfnsr.errors import InputError
from cfnsr.models.entries import ENTRIES, NOTES, Build, Entry, Model
from cfnsr.models.names import find
from cfnsr.models.settings import PAPER, Settings
from cfnsr.models.streams import OneStream, TwoStream

FUSIONS = ("none", "late", "early", "model")  # where the modalities meet
PACKAGE = Path(__file__).resolve().parents[1]


def list_models() -> list[str]:
    """Names of all models with the encoders they come with, in the order of the paper's tables.

    >>> list_models()[:2]
    ['video', 'audio']
    """
    return list(ENTRIES)


def create_model(
    name: str,
    *,
    classes: int = 8,
    mfcc_steps: int = 212,
    width: float = 1.0,
    openface_features: int = 35,
    speech_layers: int = 5,
    speech_width: int = 384,
    expression_features: int = 263,
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
        expression_features: values of an expression network at each step, for the encoder "expression".

    Raises:
        InputError: for an unknown name or settings that no network can have.

    >>> sum(p.numel() for p in create_model("cfn_sr").parameters())
    26301417
    """
    settings = Settings(
        classes, mfcc_steps, width, openface_features, speech_layers, speech_width, expression_features
    )
    return build(name, settings)


def build(name: str, settings: Settings) -> Model:
    """Build a model of the zoo from `Settings`, with the encoders in its name."""
    found = find(name)
    model = found.build(replace(settings, **cast(dict[str, Any], found.encoders)))
    if not isinstance(model, OneStream | TwoStream):
        raise InputError(
            f"model {name} is built as {type(model).__name__}: its @entry function must return a model, "
            "such as settings.fuse(...)"
        )
    for modality, encoder in found.encoders.items():
        if encoder != PAPER[modality] and model.reads.get(modality, encoder) != encoder:
            raise InputError(
                f"model {name} reads {model.reads[modality]} and not {encoder}: its @entry function must "
                "make its encoders of the settings it is given"
            )
    return model


def entry(
    name: str,
    *,
    fusion: str,
    paper_accuracy: float | None = None,
    paper_params: float | None = None,
    modalities: tuple[str, ...] = ("video", "audio"),
    note: str = "",
    encoders: tuple[str, ...] = (),
) -> Callable[[Build], Build]:
    """Register a function that builds a model from `Settings` under a name; see `Entry` for the rest.

    Args:
        encoders: of a model that has these alone; else the paper's, and a name may choose others.
        note: why the number of parameters is not the paper's.

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
        if not modalities or not set(modalities) <= set(PAPER):
            raise InputError(f"modalities of model {name} are {modalities}: expected video, audio or both")
        ordered = [modality for modality in PAPER if modality in modalities]
        chosen = encoders or [PAPER[modality] for modality in ordered]
        ENTRIES[name] = Entry(
            build,
            fusion,
            paper_accuracy,
            paper_params,
            dict(zip(ordered, chosen, strict=True)),
            fixed=bool(encoders),
            source=_source_of(build),
        )
        if note:
            NOTES[name] = note
        return build

    return register


def _source_of(build: Build) -> str:
    """Hash (SHA-256) of the file a function was written in, if that is none of the package's."""
    code = getattr(build, "__code__", None)
    path = Path(code.co_filename) if code is not None else Path()
    if not path.is_file() or PACKAGE in path.resolve().parents:
        return ""
    return hashlib.sha256(path.read_bytes()).hexdigest()
