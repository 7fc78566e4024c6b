"""Description of an exported file: all that a program without PyTorch needs beside the graph."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cfnsr import __version__
from cfnsr.emotions import LabelSet
from cfnsr.errors import InputError
from cfnsr.features.base import FEATURES, Arrays, Look
from cfnsr.features.preparation import Preparation

FORMAT = 1
KEY = "cfnsr"  # of the manifest in a file's metadata
OUTPUT = "log_probabilities"
PRECISIONS = ("f32", "bf16", "int8")


@dataclass(frozen=True)
class Manifest:
    """The graph's inputs and output, and the preparation of a file for them.

    The graph gives calibrated log-probabilities `(B, classes)`, float32, under the name `OUTPUT`.

    Args:
        name: of the model in the zoo, its encoders included.
        labels: the emotions in class order.
        reads: for "video", "audio" or both, what the model reads there: a key of `FEATURES`.
        shapes: of each input of the graph, by its name and without the batch.
        frames: pictures a clip.
        size: side of a picture in pixels.
        preparation: of the training clips; a user's file goes the same way.
        normalised: whether it was trained on features that were standardised over all takes of a speaker.
        tolerant: whether it was trained on clips with dropped pictures or sound.
        temperature: divisor that the log-probabilities already contain.
        precision: "f32", "bf16" (weights in float32, to be computed in bfloat16 where the processor can)
            or "int8".
    """

    name: str
    labels: LabelSet
    reads: dict[str, str]
    shapes: dict[str, tuple[int, ...]]
    frames: int
    size: int
    openface_steps: int
    speech_steps: int
    preparation: Preparation
    normalised: bool = False
    tolerant: bool = False
    temperature: float = 1.0
    precision: str = "f32"

    @property
    def inputs(self) -> dict[str, str]:
        """The graph's inputs in their order: name and type of the numbers."""
        return {FEATURES[name].entry: FEATURES[name].dtype for name in self.reads.values()}

    @property
    def needed(self) -> tuple[str, ...]:
        """Names of the prepared clip's arrays that the inputs are made of."""
        names = (FEATURES[name].graph_arrays(self.preparation) for name in self.reads.values())
        return tuple(each for some in names for each in some)

    @property
    def look(self) -> Look:
        """Amount of a prepared clip that the graph reads."""
        features = self.shapes["openface"][0] if "openface" in self.shapes else Look.openface_features
        return Look(self.frames, self.size, self.openface_steps, features, self.speech_steps)

    def batch(self, clips: Sequence[Arrays]) -> dict[str, NDArray[Any]]:
        """The graph's inputs for some prepared clips, side by side.

        Raises:
            InputError: for a clip that lacks an array, or has one of another shape.
        """
        made: dict[str, NDArray[Any]] = {}
        for name in self.reads.values():
            feature, each = FEATURES[name], []
            names = feature.graph_arrays(self.preparation)
            for clip in clips:
                if missing := [array for array in names if array not in clip]:
                    raise InputError(
                        f"the clip has no {', '.join(missing)}: model {self.name} reads "
                        f"{', '.join(self.needed)}"
                    )
                each.append(feature.to_graph({array: clip[array] for array in names}, self.look))
                if each[-1].shape != self.shapes[feature.entry]:
                    raise InputError(
                        f"{feature.entry} of a clip is {each[-1].shape}: model {self.name} expects "
                        f"{self.shapes[feature.entry]}; prepare it as the model's clips were"
                    )
            made[feature.entry] = np.stack(each)
        return made

    def dump(self) -> str:
        """Write as JSON."""
        described = {
            "format": FORMAT,
            "cfnsr": __version__,
            **asdict(self),
            "preparation": self.preparation.as_json(),
            "inputs": self.inputs,
            "output": OUTPUT,
        }
        return json.dumps(described)

    @classmethod
    def load(cls, text: str, path: object) -> "Manifest":
        """Read the manifest of a file.

        Raises:
            InputError: for another format, and for what is damaged.
        """
        try:
            value: dict[str, Any] = json.loads(text)
            if value["format"] != FORMAT:
                raise InputError(
                    f"{path} is an export of format {value['format']} (written by cfnsr "
                    f"{value.get('cfnsr', 'unknown')}): this is cfnsr {__version__}, which reads format "
                    f"{FORMAT}; export again or install that version"
                )
            found = cls(
                name=str(value["name"]),
                labels=LabelSet(str(value["labels"]["name"]), tuple(map(str, value["labels"]["emotions"]))),
                reads={str(modality): str(name) for modality, name in value["reads"].items()},
                shapes={str(name): tuple(map(int, shape)) for name, shape in value["shapes"].items()},
                frames=int(value["frames"]),
                size=int(value["size"]),
                openface_steps=int(value["openface_steps"]),
                speech_steps=int(value["speech_steps"]),
                preparation=Preparation.from_json(value["preparation"]),
                normalised=bool(value["normalised"]),
                tolerant=bool(value["tolerant"]),
                temperature=float(value["temperature"]),
                precision=str(value["precision"]),
            )
            found.check()
        except InputError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(f"{path} is damaged ({error}): export the model again") from None
        return found

    def check(self) -> None:
        """Raise `ValueError` or `KeyError` for values that fit no graph of cfnsr."""
        if not self.reads or not set(self.reads) <= {"video", "audio"}:
            raise ValueError(f"reads {self.reads}")
        if set(self.shapes) != set(self.inputs):
            raise ValueError(f"shapes of {', '.join(self.shapes)} for inputs {', '.join(self.inputs)}")
        if not all(0 < side < 10**8 for shape in self.shapes.values() for side in shape):
            raise ValueError(f"shapes {self.shapes}")
        if "frames" in self.shapes and self.shapes["frames"] != (self.frames, self.size, self.size, 3):
            raise ValueError(f"frames of {self.shapes['frames']}")
        if "waveform" in self.shapes and self.shapes["waveform"] != (self.preparation.samples,):
            raise ValueError(f"waveform of {self.shapes['waveform']}")
        if self.precision not in PRECISIONS or not 0 < self.temperature < math.inf:
            raise ValueError(f"precision {self.precision}, temperature {self.temperature}")
