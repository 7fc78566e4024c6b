"""Finished runs read back from their folders, and checked before anything is computed from them.

A run folder holds `run.json` (what was trained on whom), `history.jsonl` (one line an epoch),
`predictions.csv` (natural-log probabilities of every clip at the chosen epoch) and `conditions.csv` (those
of the test clips under bad input). Every figure of the report is computed from these files alone.
"""

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from cfnsr.corpus.take import Actor
from cfnsr.data.folds import OPTIMISTIC
from cfnsr.emotions import LabelSet
from cfnsr.errors import InputError
from cfnsr.evaluation.predictions import AGAIN, Predictions, read_conditions, read_predictions
from cfnsr.files import read_json

# What the runs of one row must have in common.
ALIKE = (
    "preset",
    "corpus",
    "clips",
    "fingerprint",
    "labels",
    "params",
    "folds",
    "selected_on",
    "caveat",
    "leaky",
    "settings",
    "source",
)
ABOUT, HISTORY, PREDICTIONS, CONDITIONS = "run.json", "history.jsonl", "predictions.csv", "conditions.csv"
INTERACTION = "interaction.csv"
LEAKY = "leaky: actors shared between training and test"
# What `models.zoo.entry` registers, with the encoders that a name may choose.
MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*(?:\+[a-z][a-z0-9_]*){0,2}")


@dataclass(frozen=True, eq=False)
class Run:
    """One finished run: one model, one fold, one seed.

    Args:
        folder: where it was read from.
        fold: its number, from 1, of `folds` in the whole cross-validation.
        params: all parameters that a prediction needs, a pretrained encoder's too.
        trained_params: those of them that were trained.
        epoch: the chosen epoch, from 1, of `epochs`.
        selected_on: the split that chose the epoch; "test" makes the figures optimistic.
        caveat: why the figures flatter, to stand beside each of them; empty for an honest run.
        leaky: whether actors are shared between the splits, on purpose: to show what that adds.
        clips: the corpus's clips.
        fingerprint: of the corpus's contents; empty where the training wrote none.
        settings, versions: as the training wrote them.
        source: SHA-256 of the plugin's file that the model is from; empty for the package's own.
        seconds: how long the run took.
        history: one entry an epoch, in the order of training.
        temperature: fitted by the training on the validation clips; None where it fitted none.
        test, validation: the predictions at the chosen epoch.
        conditions: those of the test clips under bad input; empty where the run was not scored so.
        interaction: the same with the exchange between the modalities disturbed.
        attention_entropy: of the exchange's weights, 1 where they are uniform; None where it has none.
    """

    folder: Path
    model: str
    protocol: str
    preset: str
    fold: int
    folds: int
    seed: int
    params: int
    trained_params: int
    epoch: int
    epochs: int
    selected_on: str
    caveat: str
    leaky: bool
    labels: LabelSet
    train_actors: tuple[Actor, ...]
    validation_actors: tuple[Actor, ...]
    test_actors: tuple[Actor, ...]
    corpus: str
    clips: int
    fingerprint: str
    settings: Mapping[str, Any]
    source: str
    versions: Mapping[str, str]
    seconds: float
    history: tuple[Mapping[str, Any], ...]
    temperature: float | None
    test: Predictions
    validation: Predictions
    conditions: Mapping[str, Predictions]
    interaction: Mapping[str, Predictions]
    attention_entropy: float | None

    @property
    def keeps_last(self) -> bool:
        """True where the weights are those of the last epoch, so that nobody chose one."""
        return self.settings.get("keep") == "last"

    @property
    def optimistic(self) -> bool:
        """True where the epoch was chosen on the clips that the figures are computed from."""
        return _optimistic(self.selected_on, self.protocol)


@dataclass(frozen=True)
class Unfinished:
    """A run folder that is not counted, and why."""

    folder: Path
    reason: str


def read_runs(folder: Path | str) -> list[Run]:
    """All finished runs below a folder, checked, ordered by model, protocol, seed and fold.

    Raises:
        InputError: the folder is missing or has no finished run; a file of a run is broken; actors leak
            from one split into another; or a fold stands there twice with different contents.
    """
    root = Path(folder)
    finished = [place for place in _run_folders(root) if _unfinished(place) is None]
    if not finished:
        raise InputError(
            f"{root} has no finished run: expected folders with a {ABOUT} that says it is finished; "
            "train some with `cfnsr crossval`"
        )
    once = _without_copies([read_run(place) for place in finished])
    _check_folds(once)
    return sorted(once, key=lambda run: (run.model, run.protocol, run.seed, run.fold))


def unfinished_runs(folder: Path | str) -> list[Unfinished]:
    """The run folders below a folder that are not finished: begun, cut off, or without a `run.json`."""
    root = Path(folder)
    reasons = ((place, _unfinished(place)) for place in _run_folders(root))
    return [Unfinished(place.relative_to(root), reason) for place, reason in reasons if reason is not None]


def read_run(folder: Path) -> Run:
    """One finished run, checked by itself; raises `InputError` where a file is broken or actors leak."""
    path = folder / ABOUT
    about = _read_about(folder)
    try:
        labels = LabelSet(str(about["labels"]["name"]), tuple(map(str, about["labels"]["emotions"])))
        splits = {split: tuple(about[f"{split}_actors"]) for split in ("train", "validation", "test")}
        leaky = about.get("leaky", False) is True
        if not leaky:
            _check_leaks(splits, path)
        test, validation = read_predictions(folder / PREDICTIONS, labels, splits, about.get("predicted"))
        temperature = about.get("temperature")
        prepared = {f"prepared {name}": value for name, value in about.get("preparation", {}).items()}
        entropy = about.get("attention_entropy")
        run = Run(
            folder=folder,
            model=str(about["model"]),
            protocol=str(about["protocol"]),
            preset=str(about["preset"]),
            fold=int(about["fold"]),
            folds=int(about["folds"]),
            seed=int(about["seed"]),
            params=int(about["params"]),
            trained_params=int(about.get("trained_params", about["params"])),
            epoch=int(about["epoch"]),
            epochs=int(about["epochs"]),
            selected_on=str(about["selected_on"]),
            caveat=_caveat(about),
            leaky=leaky,
            labels=labels,
            train_actors=splits["train"],
            validation_actors=splits["validation"],
            test_actors=splits["test"],
            corpus=str(about["corpus"]["name"]),
            clips=int(about["corpus"]["clips"]),
            fingerprint=str(about["corpus"].get("sha256", "")),
            settings={**about["settings"], **prepared},
            source=str(about.get("source") or ""),
            versions={name: str(version) for name, version in about["versions"].items()},
            seconds=float(about["seconds"]),
            history=_read_history(folder / HISTORY, int(about["epochs"])),
            temperature=None if temperature is None else float(temperature),
            test=test,
            validation=validation,
            conditions=read_conditions(folder / CONDITIONS, labels, test),
            interaction=read_conditions(folder / INTERACTION, labels, test),
            attention_entropy=None if entropy is None else float(entropy),
        )
    except InputError:
        raise
    except KeyError as error:
        raise InputError(
            f"{path} has no entry {error}: expected what `cfnsr crossval` writes; {AGAIN}"
        ) from None
    except (TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{path} is not a description of a run ({error}): {AGAIN}") from None
    if not MODEL.fullmatch(run.model):
        raise InputError(
            f"{path} is of model {run.model!r}: expected letters, digits, _ and -, with + "
            f"before each of its encoders; {AGAIN}"
        )
    if not 1 <= run.epoch <= run.epochs:
        raise InputError(f"{path} chose epoch {run.epoch}: expected one from 1 to {run.epochs}; {AGAIN}")
    if not 1 <= run.fold <= run.folds:
        raise InputError(f"{path} is fold {run.fold} of {run.folds}: expected a fold from 1 to {run.folds}")
    return run


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
    if _read_about(folder).get("finished") is not True:
        return f"{ABOUT} says that it is not finished"
    return None


def _read_about(folder: Path) -> dict[str, Any]:
    return read_json(
        folder / ABOUT,
        f"the description of a run, as `cfnsr crossval` writes it; {AGAIN}",
    )


def _optimistic(selected_on: str, protocol: str) -> bool:
    return selected_on == "test" or protocol == "paper"


def _caveat(about: Mapping[str, Any]) -> str:
    """The caveat of a run; one that chose on test or leaks always has one."""
    said = [str(about["caveat"])] if about.get("caveat") else []
    if about.get("leaky") is True and not said:
        said.append(LEAKY)
    if _optimistic(str(about["selected_on"]), str(about["protocol"])) and OPTIMISTIC not in " ".join(said):
        said.append(OPTIMISTIC)
    return "; ".join(said)


def _read_history(path: Path, last: int) -> tuple[Mapping[str, Any], ...]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        epochs = tuple(json.loads(line) for line in lines if line.strip())
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as JSON lines ({error}): {AGAIN}") from None
    if not all(isinstance(epoch, dict) and "epoch" in epoch for epoch in epochs):
        raise InputError(f"{path} is no history: expected one JSON object with its epoch a line; {AGAIN}")
    if [epoch["epoch"] for epoch in epochs] != list(range(1, last + 1)):
        raise InputError(
            f"{path} has {len(epochs)} epochs: expected those from 1 to {last}, a line each; {AGAIN}"
        )
    return epochs


def _check_leaks(splits: Mapping[str, Sequence[Actor]], path: Path) -> None:
    for (one, actors), (other, others) in combinations(splits.items(), 2):
        both = sorted({str(actor) for actor in actors} & {str(actor) for actor in others})
        if both:
            raise InputError(
                f"{path}: actor {', '.join(both)} is in both {one} and {other}: "
                f"expected splits without a common actor; {AGAIN}"
            )


def _without_copies(runs: Sequence[Run]) -> list[Run]:
    """Each fold once; a copy of a run is passed over, a different run of the same fold is an error."""
    kept: dict[tuple[str, str, int, int], Run] = {}
    for run in runs:
        first = kept.setdefault((run.model, run.protocol, run.seed, run.fold), run)
        same = (first.folder / PREDICTIONS).read_bytes() == (run.folder / PREDICTIONS).read_bytes()
        if not same or _lasting(first) != _lasting(run):
            raise InputError(
                f"{first.folder} and {run.folder} are both fold {run.fold} of {run.model} ({run.protocol}, "
                f"seed {run.seed}) but differ: expected each fold once; move one away"
            )
    return list(kept.values())


def _lasting(run: Run) -> dict[str, Any]:
    """The description of a run, without what differs when the same training is done again."""
    about = _read_about(run.folder)
    return {key: value for key, value in about.items() if key not in ("seconds", "versions")}


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
