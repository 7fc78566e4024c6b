"""The models that come with the package, each a checkpoint with a card and a licence of its own."""

from functools import cache
from importlib.resources import files
from pathlib import Path

DEFAULT = "everyday"  # where no model is named
PRETRAINED = Path(str(files("cfnsr"))) / "pretrained"
NOTE = (
    "trained on acted emotions of RAVDESS and nEMO (CC BY-NC-SA 4.0, not for commercial use); on other "
    "people it is often wrong, see docs/other-people.md"
)


@cache
def shipped_models() -> dict[str, Path]:
    """Folders of the models that come with the package, by name."""
    return {path.parent.name: path.parent for path in sorted(PRETRAINED.glob("*/config.json"))}


def find_folder(source: str | Path) -> Path:
    """Find the folder of a model that comes with the package, unless there is one of that name here."""
    path = Path(source)
    return path if path.exists() else shipped_models().get(str(source), path)
