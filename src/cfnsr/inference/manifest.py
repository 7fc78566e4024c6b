"""Description of an exported file: all that a program without PyTorch needs beside the graph."""

import json
import math
from dataclasses import asdict, dataclass
from typing import Any

from cfnsr import __version__
from cfnsr.data.clip import Preparation, speech_at
from cfnsr.emotions import LabelSet
from cfnsr.errors import InputError

FORMAT = 1
KEY = "cfnsr"  # of the manifest in a file's metadata
OUTPUT = "log_probabilities"
# Input of a model -> the graph's input, and the type of its numbers.
INPUTS = {
    "video": ("frames", "uint8"),
    "openface": ("openface", "float32"),
    "audio": ("waveform", "float32"),
    "log_mel": ("waveform", "float32"),
    "speech": ("speech", "float32"),
}
PRECISIONS = ("f32", "bf16", "int8")


@dataclass(frozen=True)
class Manifest:
    """The graph's inputs and output, and the preparation of a file for them.

    The graph gives calibrated log-probabilities `(B, classes)`, float32, under the name `OUTPUT`.

    Args:
        name: of the model in the zoo, its encoders included.
        labels: the emotions in class order.
        reads: for "video", "audio" or both, what the model reads there: a key of `INPUTS`.
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
        return dict(INPUTS[name] for name in self.reads.values())

    @property
    def needed(self) -> tuple[str, ...]:
        """Names of the prepared clip's tensors that the inputs are made from."""
        return tuple(tensor for name in self.reads.values() for tensor in tensors(name, self.preparation))

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


def tensors(name: str, preparation: Preparation) -> list[str]:
    """Names of the prepared clip's tensors behind an input of a model.

    >>> tensors("audio", Preparation()), tensors("speech", Preparation())
    (['waveform'], ['speech', 'speech_0.9', 'speech_1.1'])
    """
    if name == "speech":
        return [name, *(speech_at(speed) for speed in preparation.speech_speeds)]
    return ["waveform" if INPUTS[name][0] == "waveform" else name]
