"""A checkpoint is a folder that describes itself: config.json and model.safetensors."""

from dataclasses import replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from cfnsr.errors import InputError
from cfnsr.features.spec import FORMAT, ModelSpec
from cfnsr.files import read_bytes, read_json, write_atomically
from cfnsr.models.entries import Model
from cfnsr.models.names import find
from cfnsr.models.streams import OneStream
from cfnsr.models.zoo import create_model


def read_spec(folder: Path) -> ModelSpec:
    """Read config.json of a checkpoint.

    Raises:
        InputError: for another format, a damaged file, or a model of a user's own whose code is another.
    """
    path = folder / "config.json"
    value = read_json(path, "a checkpoint folder with config.json and model.safetensors")
    if value.get("format") == FORMAT and "model" in value:
        find(str(value["model"]))  # before its settings: one of a user's own is unknown without its plugin
    spec = ModelSpec.from_json(value, path, "train again")
    if find(spec.model).source != spec.source:
        raise InputError(
            f"{folder} was trained with other code of model {spec.model}: give --plugin the file as it was "
            "then, or train again"
        )
    return spec


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
    """Load a trained model, ready to predict, from a checkpoint: config.json and model.safetensors.

    `model.config` is its configuration, `model.folder` the folder it was loaded from.

    Raises:
        InputError: when the folder is no checkpoint or one of another version.
    """
    folder = Path(folder)
    config = read_spec(folder)
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


def config_of(model: nn.Module) -> ModelSpec:
    """Description of a loaded model; the paper's for one that was only created."""
    config = getattr(model, "config", None)
    return config if isinstance(config, ModelSpec) else ModelSpec("")
