"""Loading of any model: a checkpoint, an exported file, or the Hugging Face hub."""

from pathlib import Path
from typing import TYPE_CHECKING

from cfnsr.corpus.take import MEDIA_SUFFIXES
from cfnsr.inference.exported import RUNTIMES, load_exported
from cfnsr.sharing import hub
from cfnsr.sharing.shipped import find_folder

if TYPE_CHECKING:
    from cfnsr.inference.recogniser import Recogniser
    from cfnsr.models.entries import Model


def load(source: "str | Path") -> "Model | Recogniser":
    """Load a model, ready for `cfnsr.predict`.

    Args:
        source: name of a model that comes with the package, folder of a checkpoint, an exported .onnx or
            .xml, or a name on the Hugging Face hub.

    Raises:
        InputError: when there is no such model, or it is damaged or of another version.
    """
    path = find_folder(source)
    if path.suffix.lower() in RUNTIMES:
        return load_exported(path)
    if is_hub_name(source):
        from cfnsr.sharing.pretrained import from_pretrained

        return from_pretrained(str(source))
    from cfnsr.training.checkpoint import load_model

    return load_model(path)


def is_hub_name(source: "str | Path") -> bool:
    """True where it names a repository on the hub: owner/name, and no path here is called so."""
    return not Path(source).exists() and hub.NAME.fullmatch(str(source)) is not None


def is_model(text: str) -> bool:
    """True where a word names a model, and not a recording."""
    path = Path(text)
    suffix = path.suffix.lower()
    if path.is_file() or suffix in MEDIA_SUFFIXES:
        return suffix in RUNTIMES
    return suffix in ("", *RUNTIMES) or path.is_dir() or is_hub_name(text)
