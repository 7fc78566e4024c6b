"""A checkpoint is a folder that describes itself: config.json and model.safetensors."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from cfnsr.errors import InputError
from cfnsr.features.spec import FORMAT, LARGEST, ModelSpec
from cfnsr.files import read_bytes, read_json, refuse_pointer, write_atomically
from cfnsr.models.entries import Model
from cfnsr.models.names import find
from cfnsr.models.streams import OneStream
from cfnsr.models.zoo import create_model

LARGEST_HEADER = 2**24  # bytes of what a model.safetensors says of its tensors
AGAIN = "get the model again, or train it again"
Shapes = Mapping[str, tuple[int, ...]]


def read_spec(folder: Path) -> ModelSpec:
    """Read config.json of a checkpoint.

    Raises:
        InputError: for another format, a damaged file, or a model of a user's own whose code is another.
    """
    path = folder / "config.json"
    value = read_json(path, "a checkpoint folder with config.json and model.safetensors", LARGEST)
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


def read_shapes(path: Path) -> Shapes:
    """Read the shapes of the tensors of a model.safetensors, and nothing of their size.

    Raises:
        OSError, ValueError, KeyError, TypeError, AttributeError: it cannot be read.
    """
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > LARGEST_HEADER:
            raise ValueError(f"a header of {length:,} bytes")
        described = json.loads(file.read(length))
    described.pop("__metadata__", None)
    end = 8 + length + max((each["data_offsets"][1] for each in described.values()), default=0)
    if path.stat().st_size != end:
        raise ValueError(f"{path.stat().st_size:,} bytes where its header says {end:,}")
    return {name: tuple(each["shape"]) for name, each in described.items()}


def shapes_of(state: Mapping[str, Tensor]) -> Shapes:
    """Shapes of a model's tensors."""
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def misfit(config: ModelSpec, shapes: Shapes) -> str:
    """Describe how weights differ from the configuration; empty where they do not.

    The model is built on no device, so that settings of any size cost nothing. One of a user's own is not:
    its code may not do without.
    """
    if config.source:
        return ""
    try:
        with torch.device("meta"):
            expected = shapes_of(create_model(config.model, **config.settings).state_dict())
    except Exception as error:  # settings may be of any type and size
        return " ".join(str(error).split())[:200]
    wrong = sorted(name for name in {*expected, *shapes} if expected.get(name) != shapes.get(name))
    if not wrong:
        return ""
    given, want = (each.get(wrong[0], "missing") for each in (shapes, expected))
    return f"{wrong[0]} is {given}, expected {want}" + (f"; {len(wrong) - 1} more" if len(wrong) > 1 else "")


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

    Somebody else may have written it: no model is built that is not as large as its weights. `model.config`
    is its configuration, `model.folder` the folder it was loaded from.

    Raises:
        InputError: when the folder is no checkpoint, one of another version, or damaged.
    """
    folder = Path(folder)
    config, path = read_spec(folder), folder / "model.safetensors"
    refuse_pointer(path)
    try:
        wrong = misfit(config, read_shapes(path))
    except (OSError, ValueError, RecursionError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise InputError(f"{path} cannot be read as safetensors ({error}): {AGAIN}") from None
    if wrong:
        raise InputError(f"{path} does not fit its config.json ({wrong}): {AGAIN}")
    model = create_model(config.model, **config.settings)
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
