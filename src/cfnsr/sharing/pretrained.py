"""Models in the Hugging Face hub's convention: a folder, or a repository of the hub, with three files.

config.json and model.safetensors are a checkpoint, README.md is its model card. Nothing else is written or
read, and nothing is ever unpickled. These are functions and no methods of the models: a model that was only
created has them too, and `models` knows nothing of training, cards or the hub.
"""

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from cfnsr.errors import InputError
from cfnsr.features.spec import ModelSpec
from cfnsr.files import refuse_pointer, write_text
from cfnsr.models.entries import Model
from cfnsr.sharing import hub
from cfnsr.sharing.folder import CARD, CONFIG, WEIGHTS, is_ours, refuse_others, replace_folder, whole
from cfnsr.training.checkpoint import (
    config_of,
    load_model,
    misfit,
    read_spec,
    read_weights,
    save_weights,
    shapes_of,
)


def save_pretrained(model: Model, folder: str | Path, *, run: str | Path | None = None) -> Path:
    """Write a model as a folder that can be shared: config.json, model.safetensors and README.md, its card.

    The folder is written whole or not at all; an earlier save there is replaced. The card is that of the run
    the model was loaded from; weights that were changed since, or are of no run, get one without figures.

    Args:
        model: any with `model.config`, a `cfnsr.features.spec.ModelSpec`, as `load_model` gives it.
        folder: new, empty, or an earlier save.
        run: the finished run that the model is of, if it was not loaded from its folder.

    Raises:
        InputError: the folder holds something else; the model does not say what it is; the run is not
            finished, or not of this model.
    """
    from cfnsr.sharing.card import card_of

    config = config_of(model)
    if not config.model:
        raise InputError(
            "the model does not say what it is: expected one of load_model or from_pretrained, or set "
            "model.config = cfnsr.features.spec.ModelSpec(name, settings)"
        )
    if wrong := misfit(config, shapes_of(model.state_dict())):
        raise InputError(f"the model is not the {config.model} that its config names: {wrong}")
    target = Path(folder).resolve()
    refuse_others(target)
    origin = getattr(model, "folder", None) if run is None else Path(run)
    if run is None and not (isinstance(origin, Path) and (origin / CONFIG).is_file()):
        origin = None
    same = origin is not None and _same(model, config, origin)
    if run is not None and not same:
        raise InputError(f"{run} holds other weights or settings than the model: expected the run it is of")

    def fill(place: Path) -> None:
        if same and origin is not None:  # byte for byte, for the card has their hash
            for name in (CONFIG, WEIGHTS):
                shutil.copyfile(origin / name, place / name)
        else:
            config.write(place)
            save_weights(model, place)
        write_text(place / CARD, card_of(place, origin, same=same))

    replace_folder(target, fill)
    return Path(folder)


def from_pretrained(
    name: str | Path,
    *,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    token: hub.Token = None,
    local_files_only: bool = False,
) -> Model:
    """Load a model from a folder, or from the Hugging Face hub (extra `cfnsr[pretrained]`).

    Of a repository config.json, model.safetensors and README.md are fetched alone. Nothing is unpickled, none
    of its code is run, and no model is built that is not as large as its weights.

    Args:
        name: a folder; if there is none of that name, owner/name on the hub.
        revision: a branch, tag or commit there; None is the main branch.
        cache_dir: where fetched files stay; None is Hugging Face's cache.
        token: for a private model; None takes that of `hf auth login`.
        local_files_only: ask nobody, take what was fetched before.

    Raises:
        InputError: no such folder or repository, no network, another library's model, or a damaged one.
    """
    folder = whole(Path(name))
    if folder is None:
        folder = hub.fetch(
            str(name),
            lambda there: _read_config(there, name),
            revision=revision,
            cache_dir=cache_dir,
            token=token,
            local_files_only=local_files_only,
        )
    _read_config(folder, name)
    return load_model(folder)


def push_to_hub(
    model: Model | str | Path, name: str, *, private: bool = False, token: hub.Token = None
) -> str:
    """Put the three files of `save_pretrained` on the Hugging Face hub; return the address of their page.

    Args:
        model: a model, or the folder of a run or of a saved one.
        name: owner/name; the repository is made if it is not there.
        private: whether a new repository is for its owner alone.
        token: that may write; None takes that of `hf auth login`.

    Raises:
        InputError: what `save_pretrained` refuses; no network, or nobody who may write there.
    """
    hub.check_name(name)
    if isinstance(model, str | Path):
        folder = whole(Path(model))
        if folder is None:
            raise InputError(f"{model} is no folder: expected that of a run, or what save_pretrained wrote")
        model = from_pretrained(folder)
    with TemporaryDirectory() as place:
        return hub.upload(save_pretrained(model, Path(place) / "model"), name, private=private, token=token)


def _same(model: nn.Module, config: ModelSpec, folder: Path) -> bool:
    """True where a model equals a checkpoint, bit for bit."""
    try:
        kept = read_weights(folder / WEIGHTS)
        if read_spec(folder) != config:
            return False
    except (InputError, OSError, SafetensorError, KeyError):
        return False
    state = model.state_dict()
    return kept.keys() == state.keys() and all(
        tensor.shape == state[name].shape
        and tensor.dtype == state[name].dtype
        and torch.equal(_bits(tensor), _bits(state[name]))
        for name, tensor in kept.items()
    )


def _bits(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8)


def _read_config(folder: Path, name: str | Path) -> ModelSpec:
    """Read the configuration of a folder that somebody else may have written."""
    refuse_pointer(folder / CONFIG)
    if (folder / CONFIG).is_file() and not is_ours(folder):
        raise InputError(
            f"{name} is no model of cfnsr, for its config.json names none: expected what save_pretrained "
            "or push_to_hub wrote"
        )
    return read_spec(folder)
