"""One description of a model: config.json of a checkpoint, and the metadata of an exported file."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cfnsr import __version__
from cfnsr.emotions import RAVDESS, LabelSet
from cfnsr.errors import InputError
from cfnsr.features.base import FEATURES, Arrays, Look
from cfnsr.features.preparation import Preparation
from cfnsr.files import write_json

FORMAT = 4
KEY = "cfnsr"  # of it in an exported file's metadata
OUTPUT = "log_probabilities"  # of an exported graph, (B, classes) float32, calibrated
PRECISIONS = ("f32", "bf16", "int8")
LIMITS = {"frames": (8, 64), "size": (64, 288), "openface_steps": (1, 1000), "speech_steps": (1, 1000)}
# Of `settings`: far more than any network here has, and little enough to build.
SETTINGS = {
    "classes": (2, 1000),
    "mfcc_steps": (1, 10_000),
    "width": (0.01, 8),
    "openface_features": (1, 10_000),
    "speech_layers": (1, 200),
    "speech_width": (1, 10_000),
    "expression_features": (1, 10_000),
}
LARGEST = 2**20  # bytes of a config.json, and of its text in an exported file; cfnsr's have a hundredth of it
# Some files of this format do not have these.
LATER = (
    "normalised",
    "modality_dropout",
    "independent",
    "corpora",
    "reads",
    "precision",
)


@dataclass(frozen=True)
class ModelSpec:
    """Everything beside the weights that is needed to use a model on a file.

    Args:
        model: name in the zoo.
        settings: keyword arguments of `create_model`.
        labels: the emotions in class order.
        frames: pictures a clip.
        size: side of a picture in pixels.
        openface_steps: steps of an OpenFace track.
        speech_steps: steps of a speech encoder's states.
        preparation: how the training clips were made; a user's file goes the same way.
        temperature: divisor of predicted log-probabilities, fitted on inner validation clips.
        source: of a user's own model, SHA-256 of the file it was registered from.
        normalised: trained on features that were standardised over all takes of a speaker.
        modality_dropout: probability that a training clip's pictures or its sound were dropped.
        independent: its modalities were trained apart, and it answers by one where the other is missing.
        corpora: names of those that trained it, where no run says so.
        reads: of an exported model, its inputs for "video", "audio" or both: keys of `FEATURES`.
        precision: of an exported model, "f32", "bf16" (computed in bfloat16 where possible) or "int8".
    """

    model: str
    settings: dict[str, Any] = field(default_factory=dict)
    labels: LabelSet = RAVDESS
    frames: int = 30
    size: int = 224
    openface_steps: int = 16
    speech_steps: int = 24
    preparation: Preparation = field(default_factory=Preparation)
    temperature: float = 1.0
    source: str = ""
    normalised: bool = False
    modality_dropout: float = 0.0
    independent: bool = False
    corpora: list[str] = field(default_factory=list)
    reads: dict[str, str] = field(default_factory=dict)
    precision: str = "f32"

    @property
    def look(self) -> Look:
        """Amount of a prepared clip that the model reads."""
        features = self.settings.get("openface_features", Look.openface_features)
        return Look(self.frames, self.size, self.openface_steps, features, self.speech_steps)

    @property
    def tolerant(self) -> bool:
        """It can do without pictures or without sound."""
        return self.modality_dropout > 0 or self.independent

    @property
    def inputs(self) -> dict[str, str]:
        """Inputs of the exported graph in their order: name and type of the numbers."""
        return {FEATURES[name].entry: FEATURES[name].dtype for name in self.reads.values()}

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each input of the exported graph, without the batch."""
        features = [FEATURES[name] for name in self.reads.values()]
        return {each.entry: each.graph_shape(self.look, self.preparation, self.settings) for each in features}

    def batch(self, clips: Sequence[Arrays]) -> dict[str, NDArray[Any]]:
        """The exported graph's inputs for some prepared clips, side by side.

        Raises:
            InputError: for a clip that lacks an array, or has one of another shape.
        """
        made: dict[str, NDArray[Any]] = {}
        look, shapes = self.look, self.shapes
        needed = {name: FEATURES[name].graph_arrays(self.preparation) for name in self.reads.values()}
        for name, names in needed.items():
            feature, each = FEATURES[name], []
            expected = shapes[feature.entry]
            for clip in clips:
                if missing := ", ".join(array for array in names if array not in clip):
                    every = ", ".join(array for some in needed.values() for array in some)
                    raise InputError(f"the clip has no {missing}: model {self.model} reads {every}")
                each.append(feature.to_graph({array: clip[array] for array in names}, look))
                if each[-1].shape != expected:
                    raise InputError(
                        f"{feature.entry} of a clip is {each[-1].shape}: model {self.model} expects "
                        f"{expected}; prepare it as the model's clips were"
                    )
            made[feature.entry] = np.stack(each)
        return made

    def write(self, folder: Path) -> None:
        """Write config.json."""
        write_json(folder / "config.json", self.as_json())

    def as_json(self) -> dict[str, Any]:
        """All of it as JSON keeps it; of an exported model the graph's inputs and output too."""
        preparation = self.preparation.as_json()
        value = {"format": FORMAT, "cfnsr": __version__, **asdict(self), "preparation": preparation}
        value["labels"] = self.labels.as_json()
        if not self.reads:
            del value["reads"], value["precision"]
            return value
        return {**value, "inputs": self.inputs, "shapes": self.shapes, "output": OUTPUT}

    @classmethod
    def from_json(cls, value: dict[str, Any], place: object, again: str) -> "ModelSpec":
        """Read what `as_json` gave; messages name its `place`, and what to do `again`.

        Raises:
            InputError: for another format, and for what is damaged.
        """
        if value.get("format") != FORMAT:
            raise InputError(
                f"{place} has format {value.get('format')} (written by cfnsr "
                f"{value.get('cfnsr', 'unknown')}): this is cfnsr {__version__}, which reads format "
                f"{FORMAT}; {again} or install that version"
            )
        try:
            spec = cls(
                model=str(value["model"]),
                settings=dict(value["settings"]),
                labels=LabelSet.from_json(value["labels"]),
                preparation=Preparation.from_json(value["preparation"]),
                temperature=float(value["temperature"]),
                source=str(value["source"]),
                **{name: value[name] for name in LIMITS},
                **{name: value[name] for name in LATER if name in value},
            )
            spec._check()
        except InputError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(f"{place} is damaged ({error}): {again}") from None
        return spec

    @classmethod
    def from_export(cls, text: str, path: object) -> "ModelSpec":
        """Read the metadata of an exported file."""
        try:
            if len(text) > LARGEST:
                raise ValueError(f"its description has {len(text):,} characters")
            value = json.loads(text)
            if not isinstance(value, dict) or not value.get("reads"):
                raise ValueError("it names no inputs")
        except (ValueError, RecursionError) as error:
            raise InputError(f"{path} is damaged ({error}): export the model again") from None
        return cls.from_json(value, path, "export again")

    def _check(self) -> None:
        """Raise `ValueError` or `KeyError` for values that no model of ours has."""
        if self.settings["classes"] != len(self.labels):
            raise ValueError(f"{self.settings['classes']} classes, {len(self.labels)} labels")
        for name, (low, high) in LIMITS.items():
            value = getattr(self, name)
            if not isinstance(value, int) or not low <= value <= high:
                raise ValueError(f"{name} {value}")
        for name, (least, most) in SETTINGS.items():
            value = self.settings.get(name, least)
            whole = isinstance(value, int) or name == "width"
            if not whole or not least <= value <= most:
                raise ValueError(f"{name} {value}")
        if not 0 < self.temperature < math.inf:
            raise ValueError(f"temperature {self.temperature}")
        if not 0 <= self.modality_dropout <= 1:
            raise ValueError(f"modality_dropout {self.modality_dropout}")
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision {self.precision}")
        for modality, name in self.reads.items():
            if FEATURES[name].role != modality:
                raise ValueError(f"reads {name} as {modality}")
        if not all(0 < side < 10**8 for shape in self.shapes.values() for side in shape):
            raise ValueError(f"shapes {self.shapes}")
