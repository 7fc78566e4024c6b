"""The models that come with the package, each a checkpoint with a card and a licence of its own."""

from functools import cache
from pathlib import Path

DEFAULT = "everyday"  # where no model is named
PRETRAINED = Path(__file__).resolve().parents[1] / "pretrained"
NOTE = (
    "trained on acted emotions of RAVDESS and nEMO (CC BY-NC-SA 4.0, not for commercial use); on other "
    "people it is often wrong, see docs/other-people.md"
)


@cache
def shipped_models() -> dict[str, Path]:
    """Folders of the models that come with the package, by name."""
    return {path.parent.name: path.parent for path in sorted(PRETRAINED.glob("*/config.json"))}


def is_shipped(source: str | Path) -> bool:
    """True where a name is that of a model of the package, and of nothing that is here."""
    return str(source) in shipped_models() and not Path(source).exists()


def find_folder(source: str | Path) -> Path:
    """Find the folder of a model: one of the package by its name, any other by its path."""
    return shipped_models()[str(source)] if is_shipped(source) else Path(source)
