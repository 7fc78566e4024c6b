"""Comparison of an exported file with the model in PyTorch."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float

from cfnsr.errors import InputError
from cfnsr.features.base import FEATURES, Arrays
from cfnsr.features.mel import Mel, as_float
from cfnsr.features.spec import ModelSpec
from cfnsr.inference.exported import ExportedModel
from cfnsr.inference.recogniser import TorchRecogniser
from cfnsr.models.entries import Model
from cfnsr.training.inputs import answer

TOLERANCE = 1e-4  # of a log-probability
LARGE = 20.0  # a log-probability beyond this, of one in a billion, is compared by its size: it has 24 bits
BATCHES = (1, 3)  # clips at once
MADE_UP = 3  # clips, where none are given


@dataclass(frozen=True)
class Checked:
    """An exported file, and its distance from PyTorch.

    Args:
        bytes: of all its files.
        clips, real: how many it was checked on, and whether they were given, not made up.
        difference: the largest of a log-probability.
        agreement: fraction of the clips that both give the same answer to.
    """

    path: Path
    bytes: int
    clips: int
    real: bool
    difference: float
    agreement: float


def reference(model: Model, spec: ModelSpec, clips: Sequence[Arrays]) -> Float[np.ndarray, "B classes"]:
    """Calibrated log-probabilities as PyTorch has them, by the way that `predict` and training go.

    Features of the sound are made anew of the waveform of 16 bits, as the graph is given. Raises `InputError`
    for a clip that the model cannot read.
    """
    recogniser, rows = TorchRecogniser(model), []
    mels = [each for name in spec.reads.values() if isinstance(each := FEATURES[name], Mel)]
    with torch.inference_mode():
        for clip in clips:
            spec.batch([clip])  # says what is missing
            heard = {mel.name: mel.compute(as_float(clip["waveform"])) for mel in mels}
            scores = answer(model, recogniser.batch([{**clip, **heard}])) / spec.temperature
            rows.append(scores.double().log_softmax(dim=1).numpy())
    return np.concatenate(rows)


def difference(exported: ExportedModel, clips: Sequence[Arrays], expected: np.ndarray) -> tuple[float, float]:
    """The largest difference of a log-probability, and the share of equal answers, at every size of a batch.

    Args:
        expected: `reference` of the clips.
    """
    worst, same = 0.0, []
    for size in BATCHES:
        for first in range(0, len(clips), size):
            places = list(islice(cycle(range(len(clips))), first, first + size))
            given = exported.log_probabilities([clips[place] for place in places])
            # NaN is as far away as can be.
            distance = np.abs(given - expected[places]) / np.maximum(1, np.abs(expected[places]) / LARGE)
            worst = max(worst, float(np.where(np.isnan(distance), np.inf, distance).max()))
            same += (given.argmax(axis=1) == expected[places].argmax(axis=1)).tolist()
    return worst, float(np.mean(same))


def refuse(path: Path, found: float) -> None:
    """Raise `InputError` where a file is farther from PyTorch than it may be."""
    if not found <= TOLERANCE:
        raise InputError(
            f"{path} was not written: its log-probabilities are {found:.2g} away from PyTorch's, expected at "
            f"most {TOLERANCE:g}; update the packages of cfnsr[export], and tell the authors if that does "
            "not help"
        )


def clips_for(spec: ModelSpec, given: Iterable[Arrays]) -> tuple[list[Arrays], bool]:
    """The given clips, or made-up ones where there are none, and whether they were given.

    Made-up clips are noise in the form of prepared ones; the last one is silent.
    """
    if clips := list(given):
        return clips, True
    for number in range(MADE_UP):
        rng = np.random.default_rng(number)
        clip: dict[str, np.ndarray] = {}
        for feature in (FEATURES[name] for name in spec.reads.values()):
            clip |= feature.noise(rng, spec.shapes[feature.entry], spec.preparation)
        clips.append(clip)
    if "waveform" in clip:
        clip["waveform"] *= 0
    return clips, False
