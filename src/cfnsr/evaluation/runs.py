"""Finished runs found below a folder, and checked against each other before any figure is computed."""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cfnsr.errors import InputError
from cfnsr.training.run import ABOUT, HISTORY, PREDICTIONS, Run, read_about

# What the runs of one row must have in common.
ALIKE = (
    *("preset", "corpus", "clips", "fingerprint", "labels", "params", "folds", "selected_on", "caveat"),
    *("leaky", "settings", "source"),
)


@dataclass(frozen=True)
class Unfinished:
    """A run folder that is not counted, and why."""

    folder: Path
    reason: str


def read_runs(folder: Path | str) -> list[Run]:
    """All finished runs below a folder, ordered by model, protocol, seed and fold.

    Raises:
        InputError: no finished run; a file of a run is broken; actors leak from one split into another; or a
            fold stands there twice with different contents.
    """
    root = Path(folder)
    finished = [place for place in _run_folders(root) if _unfinished(place) is None]
    if not finished:
        raise InputError(
            f"{root} has no finished run: expected folders with a {ABOUT} that says it is finished; "
            "train some with `cfnsr crossval`"
        )
    once = _without_copies(map(Run.read, finished))
    _check_folds(once)
    return sorted(once, key=lambda run: (run.model, run.protocol, run.seed, run.fold))


def unfinished_runs(folder: Path | str) -> list[Unfinished]:
    """The run folders below a folder that are not finished: begun, cut off, or without a `run.json`."""
    root = Path(folder)
    reasons = ((place, _unfinished(place)) for place in _run_folders(root))
    return [Unfinished(place.relative_to(root), reason) for place, reason in reasons if reason is not None]


def _run_folders(root: Path) -> Iterator[Path]:
    """Folders that are runs, finished or not, in order; what lies inside a run is its own affair."""
    if not root.is_dir():
        raise InputError(
            f"{root} is not a folder: expected one with runs, as `cfnsr crossval --out` fills it"
        )
    for place, folders, files in os.walk(root):
        here = Path(place)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if here.name.startswith("fold_") or {ABOUT, HISTORY, PREDICTIONS} & set(files):
            folders.clear()
            yield here


def _unfinished(folder: Path) -> str | None:
    """The reason why a run does not count yet; None for a finished one."""
    if not (folder / ABOUT).exists():
        return f"no {ABOUT}: the run was cut off"
    if read_about(folder).get("finished") is not True:
        return f"{ABOUT} says that it is not finished"
    return None


def _without_copies(runs: Iterable[Run]) -> list[Run]:
    """Each fold once; a copy of a run is passed over, a different run of the same fold is an error."""
    kept: dict[tuple[str, str, int, int], Run] = {}
    for run in runs:
        first = kept.setdefault((run.model, run.protocol, run.seed, run.fold), run)
        same = (first.folder / PREDICTIONS).read_bytes() == (run.folder / PREDICTIONS).read_bytes()
        # What differs when the same training is done again is no difference.
        again = replace(run, seconds=first.seconds, versions=first.versions)
        if not same or first.as_json() != again.as_json():
            raise InputError(
                f"{first.folder} and {run.folder} are both fold {run.fold} of {run.model} ({run.protocol}, "
                f"seed {run.seed}) but differ: expected each fold once; move one away"
            )
    return list(kept.values())


def _check_folds(runs: Sequence[Run]) -> None:
    """The runs of one row must belong together, and nobody may be tested twice with one seed.

    Nobody is an actor; where actors are shared between the splits on purpose it is a clip.
    """
    first_of: dict[tuple[str, str], Run] = {}
    tested: dict[tuple[str, str, int, str], Run] = {}
    for run in runs:
        first = first_of.setdefault((run.model, run.protocol), run)
        for what in ALIKE:
            if getattr(first, what) != getattr(run, what):
                raise InputError(
                    f"{first.folder} and {run.folder} differ in {what}: expected the same for all "
                    f"folds of {run.model} ({run.protocol}); report them from separate folders"
                )
        what, each = ("clip", run.test.clips) if run.leaky else ("actor", map(str, run.test_actors))
        for one in each:
            other = tested.setdefault((run.model, run.protocol, run.seed, one), run)
            if other is not run:
                raise InputError(
                    f"{what} {one} is tested in both {other.folder} and {run.folder}: "
                    f"expected each {what} in one test fold; delete one and train it again"
                )
