"""A folder of three files that is replaced as a whole: a save that is cut off leaves the old one."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from cfnsr.errors import InputError, listed
from cfnsr.features.spec import LARGEST
from cfnsr.files import check_folder, read_json

CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"
FILES = (CONFIG, WEIGHTS, CARD)


def whole(folder: Path) -> Path | None:
    """Find a saved folder: in its place, or beside it if a save was cut off just there; else None."""
    return next((place for place in (folder, _before(folder)) if place.is_dir()), None)


def refuse_others(folder: Path) -> None:
    """Refuse to replace what is not an earlier save: anything but its three files, or another library's.

    Raises:
        InputError: a file stands there, a folder that holds something else, or the working folder.
    """
    check_folder(folder)
    inside = sorted(folder.iterdir()) if folder.exists() else []
    others = [path.name for path in inside if path.name not in FILES or not path.is_file()]
    if others:
        raise InputError(
            f"{folder} holds {listed(others, 1)}: expected a new or empty folder, or an earlier save, which "
            "is replaced as a whole"
        )
    if inside and not is_ours(folder):
        raise InputError(
            f"{folder} holds a {inside[0].name} that cfnsr did not write: expected a new or empty folder, or "
            "an earlier save"
        )
    here = Path.cwd()
    if folder in (here, *here.parents):
        raise InputError(f"{folder} is where you stand and cannot be replaced: give another folder")


def is_ours(folder: Path) -> bool:
    """True where config.json is that of a checkpoint of cfnsr, of any format."""
    try:
        return "cfnsr" in read_json(folder / CONFIG, "a checkpoint's configuration", LARGEST)
    except InputError:
        return False


def replace_folder(folder: Path, fill: Callable[[Path], object]) -> None:
    """Let `fill` write a folder beside this one (resolved), then put it in its place.

    Two folders cannot change places in one step, so there is a moment between two renamings in which the old
    one stands beside its place alone; `whole` finds it there.
    """
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    before = _before(folder)
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        fill(temporary)
        if folder.exists():
            shutil.rmtree(before, ignore_errors=True)  # of a save that was cut off when all was in its place
            folder.rename(before)
        try:
            temporary.rename(folder)
        except OSError:
            if before.exists():
                before.rename(folder)
            raise
        shutil.rmtree(before, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _before(folder: Path) -> Path:
    """Place of the old folder while the new one is put in its place."""
    return folder.with_name(f".{folder.name}.cfnsr-before")
