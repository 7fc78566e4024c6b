"""A checkpoint is a folder that describes itself: config.json and model.safetensors."""

import math
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from cfnsr import __version__
from cfnsr.emotions import RAVDESS, LabelSet
from cfnsr.errors import InputError
from cfnsr.features.base import Look
from cfnsr.features.preparation import Preparation
from cfnsr.files import read_bytes, read_json, write_atomically, write_json
from cfnsr.models.streams import OneStream
from cfnsr.models.zoo import Model, Settings, create_model, find

FORMAT = 4


@dataclass(frozen=True)
class Config:
    """All that is needed beside the weights to use a model on a file.

    Args:
        model: name in the zoo.
        settings: keyword arguments of `create_model`.
        labels: the emotions in class order.
        frames: pictures a clip.
        size: side of a picture in pixels.
        preparation: of the training clips; a user's file goes the same way.
        temperature: divisor of predicted log-probabilities, fitted on inner validation clips.
        source: of a user's own model, SHA-256 of the file it was registered from.
        normalised: whether it was trained on features that were standardised over all takes of a speaker.
        modality_dropout: probability that a training clip's pictures or sound were dropped; a model that
            never met that abstains where they are missing.
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

    @property
    def look(self) -> Look:
        """Part of a prepared clip that the model is shown."""
        features = self.settings.get("openface_features", Settings.openface_features)
        return Look(self.frames, self.size, self.openface_steps, features, self.speech_steps)

    def write(self, folder: Path) -> None:
        """Write config.json."""
        preparation = self.preparation.as_json()
        value = {"format": FORMAT, "cfnsr": __version__, **asdict(self), "preparation": preparation}
        write_json(folder / "config.json", value)

    @classmethod
    def read(cls, folder: Path) -> "Config":
        """Read config.json; raise `InputError` for another format or a damaged file."""
        path = folder / "config.json"
        value = read_json(path, "a checkpoint folder with config.json and model.safetensors")
        if value.get("format") != FORMAT:
            raise InputError(
                f"{folder} is a checkpoint of format {value.get('format')} (written by cfnsr "
                f"{value.get('cfnsr', 'unknown')}): this is cfnsr {__version__}, which reads format "
                f"{FORMAT}; train again or install that version"
            )
        try:
            labels = LabelSet(value["labels"]["name"], tuple(value["labels"]["emotions"]))
            preparation = Preparation.from_json(value["preparation"])
            if value["settings"]["classes"] != len(labels):
                raise TypeError(f"{value['settings']['classes']} classes, {len(labels)} labels")
            frames, size = value["frames"], value["size"]
            if not (
                isinstance(frames, int) and 8 <= frames <= 64 and isinstance(size, int) and 64 <= size <= 288
            ):
                raise ValueError(f"frames {frames}, size {size}")
            steps = value["openface_steps"], value["speech_steps"]
            if not all(isinstance(each, int) and 1 <= each <= 1000 for each in steps):
                raise ValueError(f"openface_steps {steps[0]}, speech_steps {steps[1]}")
            temperature = float(value["temperature"])
            if not 0 < temperature < math.inf:
                raise ValueError(f"temperature {temperature}")
            source = str(value["source"])
            if find(value["model"]).source != source:
                raise InputError(
                    f"{folder} was trained with other code of model {value['model']}: give --plugin the file "
                    "as it was then, or train again"
                )
            return cls(
                value["model"],
                value["settings"],
                labels,
                frames,
                size,
                *steps,
                preparation,
                temperature,
                source,
                bool(value.get("normalised", False)),
                float(value.get("modality_dropout", 0.0)),
            )
        except InputError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(f"{path} is damaged ({error}): expected a checkpoint written by cfnsr") from None


def save_weights(model: nn.Module, folder: Path) -> None:
    """Write model.safetensors, whole or not at all."""
    data = save({name: tensor.contiguous().cpu() for name, tensor in model.state_dict().items()})
    write_atomically(folder / "model.safetensors", lambda temporary: temporary.write_bytes(data))


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a model.safetensors, whatever its name: safetensors opens no path that is no text.

    Raises:
        OSError, SafetensorError, KeyError: it cannot be read.
    """
    return load(read_bytes(path))


def load_weights(model: nn.Module, folder: Path) -> None:
    """Fill a model with the weights of a checkpoint."""
    path = folder / "model.safetensors"
    try:
        model.load_state_dict(read_weights(path))
    except (OSError, SafetensorError, KeyError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{path} does not fit its config.json ({reason}): train again") from None


def load_model(folder: str | Path) -> Model:
    """Load a trained model, ready to predict.

    `model.config` is its configuration, `model.folder` the folder it was loaded from.

    Args:
        folder: a checkpoint: config.json and model.safetensors.

    Raises:
        InputError: when the folder is no checkpoint or one of another version.
    """
    folder = Path(folder)
    config = Config.read(folder)
    try:
        model = create_model(config.model, **config.settings)
    except TypeError as error:
        raise InputError(f"{folder / 'config.json'} is damaged ({error}): train again") from None
    if not set(model.reads.values()) <= set(config.preparation.modalities):
        given = ", ".join(config.preparation.modalities)
        raise InputError(f"{folder / 'config.json'} is damaged (modalities {given}): train again")
    load_weights(model, folder)
    model.config = config  # type: ignore[assignment]
    model.folder = folder.resolve()  # type: ignore[assignment]
    return model.eval()


def temper(model: OneStream) -> None:
    """Divide a loaded model's classifier by its temperature, so that its scores are calibrated."""
    config = config_of(model)
    with torch.no_grad():
        for parameter in model.classify.parameters():
            parameter.div_(config.temperature)
    model.config = replace(config, temperature=1.0)  # type: ignore[assignment]


def config_of(model: nn.Module) -> Config:
    """Configuration of a loaded model; the paper's for one that was only created."""
    config = getattr(model, "config", None)
    return config if isinstance(config, Config) else Config("")
