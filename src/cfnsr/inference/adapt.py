"""Adaptation of a model to its user's own material, without labels: its speech standardised by theirs."""

from collections.abc import Iterable, Iterator, Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from cfnsr.data.windows import Windows
from cfnsr.errors import InputError
from cfnsr.features.base import FEATURES, Arrays
from cfnsr.inference.recogniser import Recogniser, TorchRecogniser

if TYPE_CHECKING:
    from cfnsr.models.baselines import Statistics

SPEECH = FEATURES["speech"]
FEWEST = 20  # clips or windows, whose mean and deviation say something


def adapt(model: Recogniser, clips: Iterable[Arrays]) -> Recogniser:
    """Standardise the speech of a linear model by mean and deviation of some clips, not of its training's.

    It takes out what the clips have in common: microphone, room, language and, of one person, the voice. So
    they must hold all emotions in balance, or the commonest of them is taken out too.

    Args:
        clips: as `prepare_clip` makes them, of no labels.

    Raises:
        InputError: the model has no such statistics, or there are too few clips.
    """
    import torch

    if not isinstance(model, TorchRecogniser) or not _statistics(model):
        raise InputError(
            f"model {model.name} cannot be adapted: expected one with a linear classifier of speech, such as "
            "voice or everyday, and not exported"
        )
    adapted = TorchRecogniser(deepcopy(model.model))
    (stream,) = _statistics(adapted)
    names, measured = SPEECH.arrays(model.preparation), []
    with torch.inference_mode():
        for clip in clips:
            states = SPEECH.to_model({name: clip[name] for name in names}, model.look)
            measured.append(stream.measure(torch.from_numpy(states).float()))
        if len(measured) < FEWEST:
            raise InputError(
                f"{len(measured)} clips or windows to adapt to: expected {FEWEST} or more; give more or "
                "longer files"
            )
        stream.fit(torch.cat(measured))
    return adapted


def _statistics(model: TorchRecogniser) -> "list[Statistics]":
    from cfnsr.models.baselines import Statistics

    return [
        each for each in model.model.modules() if isinstance(each, Statistics) and each.reads == SPEECH.name
    ]


def windows_of(model: Recogniser, files: Sequence[Path]) -> Iterator[Arrays]:
    """Speech of the windows of some files, as clips to adapt to; silent ones are passed over."""
    preparation = replace(model.preparation, modalities=(SPEECH.name,))
    for file in files:
        for window in Windows(file, preparation):
            if window.speech:
                yield window.tensors
