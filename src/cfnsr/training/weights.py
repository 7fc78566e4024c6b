"""Published weights for the video encoder: those of 3D ResNeXts, under their own names."""

import hashlib
import io
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from torch import Tensor, nn

from cfnsr.errors import InputError, listed
from cfnsr.files import read_bytes
from cfnsr.models.encoders.resnext import ResNeXt3D
from cfnsr.training.config import WeightsFile

_some = partial(listed, most=4)
EXPECTED = (
    "expected safetensors or a PyTorch state dict of a 3D ResNeXt-50, named as in 3D-ResNets-PyTorch "
    "(module.conv1.weight, module.layer1.0.bn1.weight) or as in a run of cfnsr"
)
WRAPPERS = ("state_dict", "model_state_dict", "model")  # keys under which a training keeps its weights
PREFIX = re.compile(r"^(?:module\.|encoder\.|video\.)+")
BLOCK = re.compile(r"layer([1-4])\.(\d+)\.(conv|bn|downsample\.)(\d)\.(\w+)")
STEM = re.compile(r"(conv|bn)1\.(\w+)")
LAYERS = {"1": "stages.0.2", "2": "stages.0.3", "3": "stages.1", "4": "stages.2"}
KINDS = {"conv": 0, "bn": 1}
COUNTER = "num_batches_tracked"  # missing in older files; nothing depends on it


@dataclass(frozen=True)
class Match:
    """Tensors of a file that fit an encoder."""

    taken: Mapping[str, Tensor]  #: by the encoder's names
    left_out: tuple[str, ...]  #: names in the file that the encoder does not have, such as a classifier's
    misshapen: tuple[str, ...]  #: names in the file whose tensors have another shape
    missing: tuple[str, ...]  #: the encoder's names that the file does not have: they begin at random

    def lines(self) -> list[str]:
        """Lines about what was found."""
        parts = {
            "left out": self.left_out,
            "left out for another shape": self.misshapen,
            "not in the file, so they begin at random": self.missing,
        }
        said = [f"{len(names)} {what}: {_some(names)}" for what, names in parts.items() if names]
        return [f"{len(self.taken)} tensors loaded", *said]


def find_weights(path: Path) -> WeightsFile:
    """Find a file of weights and its SHA-256."""
    return WeightsFile(path, hashlib.sha256(_bytes(path)).hexdigest())


def initialise_from(model: nn.Module, file: WeightsFile) -> Match | None:
    """Initialise a model's 3D ResNeXt from a file; None where it has none.

    Raises:
        InputError: the file is no such file, another than it was, of a deeper network, or nothing fits.
    """
    found = [module for module in model.modules() if isinstance(module, ResNeXt3D)]
    if not found:
        return None
    matched = match(found[0], read_weights(file), file.path)
    if not next(found[0].parameters()).is_meta:
        found[0].load_state_dict(matched.taken, strict=False)
    return matched


def read_weights(file: WeightsFile) -> dict[str, Tensor]:
    """Read the tensors of a file by the names it gives them; nothing but tensors is ever unpickled."""
    data = _bytes(file.path)
    if hashlib.sha256(data).hexdigest() != file.sha256:
        raise InputError(f"{file.path} has changed since this began: expected SHA-256 {file.sha256}")
    try:
        if file.path.suffix == ".safetensors":
            return dict(load_safetensors(data))
        with warnings.catch_warnings(action="ignore"):  # of how old the file is
            content: Any = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except SafetensorError as error:
        raise InputError(f"{file.path} cannot be read ({error}): {EXPECTED}") from None
    except Exception as error:  # torch.load raises many kinds, with words for programmers
        raise InputError(
            f"{file.path} holds more than tensors, or is damaged ({type(error).__name__}); pickled code is "
            f"never run: {EXPECTED}"
        ) from None
    for wrapper in WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if not isinstance(content, Mapping):
        raise InputError(f"{file.path} holds a {type(content).__name__}: {EXPECTED}")
    return {str(name): value for name, value in content.items() if isinstance(value, Tensor)}


def match(encoder: ResNeXt3D, tensors: Mapping[str, Tensor], path: Path) -> Match:
    """Match the tensors of a file with those of the encoder."""
    ours = encoder.state_dict()
    taken, left_out, misshapen, deeper = dict[str, Tensor](), list[str](), list[str](), list[str]()
    for name, value in sorted(tensors.items()):
        own = our_name(name)
        if name.endswith(COUNTER):
            continue
        if own in ours and ours[own].shape == value.shape:
            if not (value.is_floating_point() and value.isfinite().all()):
                raise InputError(f"{path}: tensor {name} is not all finite floating point: {EXPECTED}")
            taken[own] = value
        elif own in ours:
            misshapen.append(f"{name} {tuple(value.shape)}, ours {tuple(ours[own].shape)}")
        elif own.startswith("stages."):
            deeper.append(name)
        else:
            left_out.append(name)
    if deeper:
        raise InputError(
            f"{path} is of another network than the 3D ResNeXt-50 here, which has no {_some(deeper)}; files "
            "of ResNeXt-101 do not fit"
        )
    if not taken:
        reason = f"other shapes ({_some(misshapen)})" if misshapen else f"other names ({_some(left_out)})"
        hint = "; published weights need a preset of full width, such as paper" if misshapen else ""
        raise InputError(f"{path}: no tensor fits, they have {reason}: {EXPECTED}{hint}")
    missing = [name for name in ours if name not in taken and not name.endswith(COUNTER)]
    return Match(taken, tuple(left_out), tuple(misshapen), tuple(missing))


def our_name(name: str) -> str:
    """Name of a tensor in this package; one that is no part of the encoder stays as it is.

    >>> our_name("module.conv1.weight"), our_name("module.layer3.5.bn2.running_var")
    ('stages.0.0.0.weight', 'stages.1.5.convolutions.1.1.running_var')
    >>> our_name("layer2.0.downsample.0.weight"), our_name("module.fc.bias")
    ('stages.0.3.0.shortcut.0.weight', 'fc.bias')
    """
    name = PREFIX.sub("", name)
    if found := STEM.fullmatch(name):
        return f"stages.0.0.{KINDS[found[1]]}.{found[2]}"
    if found := BLOCK.fullmatch(name):
        layer, block, kind, number, value = found.groups()
        if kind == "downsample.":
            return f"{LAYERS[layer]}.{block}.shortcut.{number}.{value}"
        return f"{LAYERS[layer]}.{block}.convolutions.{int(number) - 1}.{KINDS[kind]}.{value}"
    return name


def _bytes(path: Path) -> bytes:
    try:
        return read_bytes(path)
    except OSError as error:
        raise InputError(f"video weights {path} cannot be read ({error.strerror}): {EXPECTED}") from None
