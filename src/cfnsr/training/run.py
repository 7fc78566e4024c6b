"""One description of a run: one model trained and tested on one fold with one seed, as its folder keeps it.

run.json          who trained, who was tested, settings, versions, and what came out
history.jsonl     losses and figures, a line an epoch
predictions.csv   natural-log probabilities of every validation and test clip
conditions.csv    the same of the test clips under bad input, or by few takes of a speaker
interaction.csv   the same with the exchange between the modalities disturbed; of models that have one
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import chain, combinations
from pathlib import Path
from typing import Any

import numpy as np

from cfnsr.corpus.take import Actor
from cfnsr.data.folds import OPTIMISTIC
from cfnsr.emotions import LabelSet
from cfnsr.errors import InputError
from cfnsr.files import read_json, write_json, write_text
from cfnsr.training.predictions import (
    AGAIN,
    Predictions,
    read_conditions,
    read_predictions,
    write_predictions,
)

ABOUT, HISTORY, PREDICTIONS = "run.json", "history.jsonl", "predictions.csv"
CONDITIONS, INTERACTION = "conditions.csv", "interaction.csv"
LEAKY = "leaky: actors shared between training and test"
# What `models.zoo.entry` registers, with the encoders that a name may choose.
MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*(?:\+[a-z][a-z0-9_]*){0,2}")
NOBODY = Predictions((), (), np.empty(0, np.int64), np.empty((0, 0)))

Record = dict[str, Any]  # of an epoch: its number, losses and figures


@dataclass(frozen=True, eq=False)
class Run:
    """One run. Its fields, up to `finished`, stand in run.json in their order.

    While a run is not finished, what follows `versions` is not known.
    """

    model: str
    protocol: str
    preset: str
    fold: int  #: its number, from 1, of `folds` in the whole cross-validation
    folds: int
    seed: int
    epochs: int  #: trained; of a run that is not finished, by its recipe
    selected_on: str  #: the split that chose the epoch; "test" makes the figures optimistic
    caveat: str  #: why the figures flatter, to stand beside each of them; empty for an honest run
    leaky: bool  #: actors are shared between the splits, on purpose: to show what that adds
    labels: LabelSet
    train_actors: tuple[Actor, ...]
    validation_actors: tuple[Actor, ...]
    test_actors: tuple[Actor, ...]
    corpus: str
    clips: int  #: their number in the corpus
    fingerprint: str  #: SHA-256 of the corpus's contents; empty where the training wrote none
    recipe: Mapping[str, Any]
    source: str  #: SHA-256 of the plugin's file that the model is from; empty for the package's own
    preparation: Mapping[str, Any]
    versions: Mapping[str, str]
    params: int = 0  #: all that a prediction needs, a pretrained encoder's too
    trained_params: int = 0
    predicted: int = 0  #: clips, of validation and test
    epoch: int = 0  #: the chosen one, from 1
    learning_rate: float | None = None  #: trained with; None where an earlier version kept none
    temperature: float | None = None  #: fitted on the validation clips; None where there are none
    attention_entropy: float | None = None  #: of the exchange's weights, 1 where they are uniform
    seconds: float = 0.0  #: of the training
    finished: bool = False
    history: Sequence[Record] = ()  #: one record an epoch
    test: Predictions = NOBODY  #: at the chosen epoch, as of validation
    validation: Predictions = NOBODY
    conditions: Mapping[str, Predictions] = field(default_factory=dict)  #: of the test under bad input
    interaction: Mapping[str, Predictions] = field(default_factory=dict)  #: with the exchange disturbed
    folder: Path = Path()  #: it was read from

    @property
    def settings(self) -> dict[str, Any]:
        """Settings of the training and, as "prepared ...", of the preparation."""
        return {**self.recipe, **{f"prepared {name}": value for name, value in self.preparation.items()}}

    @property
    def keeps_last(self) -> bool:
        """Kept with the weights of the last epoch, so that nobody chose one."""
        return self.recipe.get("keep") == "last"

    @property
    def optimistic(self) -> bool:
        """Selected on the clips that the figures are computed from."""
        return self.selected_on == "test" or self.protocol == "paper"

    def as_json(self) -> dict[str, Any]:
        """Content of run.json: the fields up to `finished`, without the outcome where there is none yet."""
        names = [each.name for each in fields(self)]
        known = names[: names.index("finished" if self.finished else "params")]
        value = {name: getattr(self, name) for name in (*known, "finished")}
        value["labels"] = self.labels.as_json()
        clips, sha256 = value.pop("clips"), value.pop("fingerprint")
        value["corpus"] = {"name": self.corpus, "clips": clips, "sha256": sha256}
        return {"settings" if name == "recipe" else name: each for name, each in value.items()}

    def write(self, folder: Path) -> None:
        """Write the files of the run, the description last; of one that is not finished, that alone."""
        if self.finished:
            write_history(folder / HISTORY, self.history)
            splits = {"validation": self.validation, "test": self.test}
            write_predictions(folder / PREDICTIONS, "split", self.labels, splits)
            write_predictions(folder / CONDITIONS, "condition", self.labels, self.conditions)
            if self.interaction:
                write_predictions(folder / INTERACTION, "condition", self.labels, self.interaction)
        write_json(folder / ABOUT, self.as_json())

    @classmethod
    def read(cls, folder: Path) -> "Run":
        """Read a finished run and check it by itself.

        Raises:
            InputError: a file is missing or broken, or actors leak from one split into another.
        """
        path, about = folder / ABOUT, read_about(folder)
        try:
            run = cls._read(folder, about)
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
            raise InputError(f"{path} is fold {run.fold} of {run.folds}: expected one from 1 to {run.folds}")
        return run

    @classmethod
    def _read(cls, folder: Path, about: Mapping[str, Any]) -> "Run":
        labels = LabelSet.from_json(about["labels"])
        splits = {split: tuple(about[f"{split}_actors"]) for split in ("train", "validation", "test")}
        leaky = about.get("leaky", False) is True
        if not leaky:
            _check_leaks(splits, folder / ABOUT)
        validation, test = read_predictions(folder / PREDICTIONS, labels, splits, about.get("predicted"))
        values: dict[str, Any] = {f"{split}_actors": actors for split, actors in splits.items()}
        values |= {name: str(about[name]) for name in ("model", "protocol", "preset", "selected_on")}
        values |= {name: int(about[name]) for name in ("fold", "folds", "seed", "epochs", "params", "epoch")}
        for name in ("learning_rate", "temperature", "attention_entropy"):
            values[name] = None if about.get(name) is None else float(about[name])
        history = read_history(folder / HISTORY)
        if [record["epoch"] for record in history] != list(range(1, values["epochs"] + 1)):
            raise InputError(
                f"{folder / HISTORY} has {len(history)} epochs: expected those from 1 to {values['epochs']}, "
                f"a line each; {AGAIN}"
            )
        run = cls(
            **values,
            caveat=str(about.get("caveat") or ""),
            leaky=leaky,
            labels=labels,
            corpus=str(about["corpus"]["name"]),
            clips=int(about["corpus"]["clips"]),
            fingerprint=str(about["corpus"].get("sha256", "")),
            recipe=dict(about["settings"]),
            source=str(about.get("source") or ""),
            preparation=dict(about.get("preparation", {})),
            versions={name: str(version) for name, version in about["versions"].items()},
            trained_params=int(about.get("trained_params", about["params"])),
            predicted=len(validation.clips) + len(test.clips),
            seconds=float(about["seconds"]),
            finished=about.get("finished") is True,
            history=history,
            test=test,
            validation=validation,
            conditions=read_conditions(folder / CONDITIONS, labels, test),
            interaction=read_conditions(folder / INTERACTION, labels, test),
            folder=folder,
        )
        caveats = [run.caveat or LEAKY * leaky]  # one that chose on test or leaks always has one
        if run.optimistic and OPTIMISTIC not in caveats[0]:
            caveats.append(OPTIMISTIC)
        return replace(run, caveat="; ".join(filter(None, caveats)))


def read_about(folder: Path) -> dict[str, Any]:
    """Read run.json."""
    return read_json(folder / ABOUT, f"the description of a run, as `cfnsr crossval` writes it; {AGAIN}")


def write_history(path: Path, history: Sequence[Record]) -> None:
    """Write the records of the epochs, a line each."""
    write_text(path, "".join(json.dumps(record) + "\n" for record in history))


def read_history(path: Path) -> list[Record]:
    """Read what `write_history` wrote."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        history = [json.loads(line) for line in lines if line.strip()]
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read as JSON lines ({error}): {AGAIN}") from None
    if not all(isinstance(record, dict) and "epoch" in record for record in history):
        raise InputError(f"{path} is no history: expected one JSON object with its epoch a line; {AGAIN}")
    for name, value in chain.from_iterable(record.items() for record in history):
        if name.endswith(("_loss", "_accuracy")) and not isinstance(value, int | float | None):
            raise InputError(f"{path} has {name} {str(value)[:40]!r}: expected a number; {AGAIN}")
    return history


def _check_leaks(splits: Mapping[str, Sequence[Actor]], path: Path) -> None:
    for (one, actors), (other, others) in combinations(splits.items(), 2):
        both = sorted({str(actor) for actor in actors} & {str(actor) for actor in others})
        if both:
            raise InputError(
                f"{path}: actor {', '.join(both)} is in both {one} and {other}: "
                f"expected splits without a common actor; {AGAIN}"
            )
