"""Comparison of an exported file with the model in PyTorch."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float

from cfnsr.data.clip import SOUND_FEATURES
from cfnsr.data.dataset import Batch, as_tensor, needed
from cfnsr.errors import InputError
from cfnsr.export.graph import manifest_of
from cfnsr.inference import arrays
from cfnsr.inference.arrays import Clip
from cfnsr.inference.exported import ExportedModel
from cfnsr.inference.manifest import Manifest
from cfnsr.models.zoo import Model
from cfnsr.training.checkpoint import Config
from cfnsr.training.inputs import answer, to_input

TOLERANCE = 1e-4  # of a log-probability
LARGE = 20.0  # a log-probability beyond this, of one in a billion, is compared by its size: it has 24 bits
BATCHES = (1, 3)  # clips at once
MADE_UP = 3  # clips, where none are given
LOUDNESS = 0.1  # of made-up noise, of full scale


@dataclass(frozen=True)
class Checked:
    """An exported file, and its distance from PyTorch.

    Args:
        path: of the file; of two, the one that names the other.
        bytes: of all its files.
        clips: how many it was checked on.
        real: whether those were given, not made up.
        difference: the largest of a log-probability.
        agreement: fraction of the clips that both give the same answer to.
    """

    path: Path
    bytes: int
    clips: int
    real: bool
    difference: float
    agreement: float


def reference(model: Model, config: Config, clips: Sequence[Clip]) -> Float[np.ndarray, "B classes"]:
    """Calibrated log-probabilities by PyTorch, along the same way as in `predict` and training.

    Only the waveform of the audio is taken from the clip, not the features that were made before it was
    rounded to 16 bits: the graph is given the same. Raises `InputError` for a clip that the model cannot
    read.
    """
    preparation, manifest = config.preparation, manifest_of(model, config)
    rows = []
    with torch.inference_mode():
        for clip in clips:
            arrays.batch([clip], manifest)  # says what is missing
            inputs = {}
            for modality, name in model.reads.items():
                if name in SOUND_FEATURES:
                    array = SOUND_FEATURES[name](arrays.waveform(clip["waveform"]))
                    inputs[modality] = torch.from_numpy(array)[None]
                else:
                    read = {key: clip[key] for key in needed(name, preparation)}
                    inputs[modality] = as_tensor(name, read, config.look)[None]
            nothing = torch.empty(0)
            batch = Batch(inputs.get("video", nothing), inputs.get("audio", nothing), nothing, nothing)
            scores = answer(model, to_input(batch, torch.device("cpu"))) / config.temperature
            rows.append(scores.double().log_softmax(dim=1).numpy())
    return np.concatenate(rows)


def difference(exported: ExportedModel, clips: Sequence[Clip], expected: np.ndarray) -> tuple[float, float]:
    """Largest difference of a log-probability, and the fraction of equal answers, at every batch size."""
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


def clips_for(manifest: Manifest, given: Iterable[Mapping[str, np.ndarray]]) -> tuple[list[Clip], bool]:
    """Return the given clips, or made-up ones where there are none, and whether they were given."""
    clips: list[Clip] = list(given)
    return (clips, True) if clips else (made_up(manifest, MADE_UP), False)


def made_up(manifest: Manifest, count: int) -> list[Clip]:
    """Make clips of noise, shaped like prepared ones; the last one is silent where there are several."""
    clips: list[Clip] = []
    for number in range(count):
        rng = np.random.default_rng(number)
        shapes = manifest.shapes
        clip: dict[str, np.ndarray] = {}
        if "frames" in shapes:
            clip["video"] = rng.integers(0, 256, shapes["frames"], dtype=np.uint8)
        if "openface" in shapes:
            clip["openface"] = rng.gamma(1.0, 0.5, shapes["openface"][::-1]).astype(np.float32)
        if "waveform" in shapes:
            loudness = 0 if number and number == count - 1 else LOUDNESS
            clip["waveform"] = (loudness * rng.standard_normal(shapes["waveform"])).astype(np.float32)
        if "speech" in shapes:
            for name in manifest.needed:
                if name.startswith("speech"):
                    clip[name] = rng.standard_normal(shapes["speech"][1:]).astype(np.float16)
        clips.append(clip)
    return clips
