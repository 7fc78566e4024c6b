"""The predictions of a run, read back from its CSV files and checked."""

import csv
import io
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cfnsr.corpus.take import Actor
from cfnsr.emotions import LabelSet
from cfnsr.errors import InputError
from cfnsr.evaluation.metrics import Floats, Ints, probabilities

AGAIN = "delete its folder and train it again"
CLEAN = "clean"
CONDITIONS: Mapping[str, str] = {  # bad input and what it is, in the order of the report
    "silent_sound": "no sound: the recording is silent",
    "noise_20db": "white noise 20 dB below the sound",
    "noise_10db": "white noise 10 dB below the sound",
    "noise_0db": "white noise as strong as the sound",
    "no_picture": "no pictures: every frame is one plain colour",
    "blurred_face": "the pictures are blurred until the features of a face melt",
    "dark_face": "most of the light is gone",
    "five_takes": "the speaker is standardised by five takes, this one and four others",
    "two_emotions": "the speaker is standardised by 16 takes, of the emotion of this one and another",
    "one_emotion": "the speaker is standardised by takes of the emotion of this one alone",
}
MEANINGS: Mapping[str, str] = {CLEAN: "the test clips as they are", **CONDITIONS}


def label(condition: str) -> str:
    """A condition in words.

    >>> label("noise_20db"), label("silent_sound")
    ('noise 20 dB', 'silent sound')
    """
    return condition.replace("_", " ").replace("0db", "0 dB")


def conditions_of(rows: Iterable[Iterable[str]]) -> list[str]:
    """All conditions of some rows: clean first, then in the order of the report."""
    there = dict.fromkeys(condition for row in rows for condition in row)
    return sorted(there, key=lambda name: [*MEANINGS, name].index(name))


@dataclass(frozen=True, eq=False)
class Predictions:
    """The clips of one split: `clips`, `actors` and `labels` (N,), `log_probabilities` (N, classes)."""

    clips: tuple[str, ...]
    actors: tuple[Actor, ...]
    labels: Ints
    log_probabilities: Floats

    @property
    def accuracy(self) -> float:
        """Share of right answers over all clips."""
        return float((self.log_probabilities.argmax(axis=1) == self.labels).mean())


LOGS = "log-probabilities"
Lines = dict[str, NDArray[Any]]  # of a file: cells of text (N,) by column, and its `LOGS` (N, classes)


def read_predictions(
    path: Path, labels: LabelSet, splits: Mapping[str, Sequence[Actor]], predicted: int | None = None
) -> tuple[Predictions, Predictions]:
    """The test and the validation predictions of one run.

    Args:
        labels: its label set.
        splits: the actors of each split.
        predicted: how many clips were predicted, if that is known.

    Raises:
        InputError: the file is cut, is no such table, or has clips of other actors.
    """
    table = _read(path, ("clip", "actor", "split", "label"), labels)
    count = len(table[LOGS])
    if predicted is not None and count != predicted:
        raise _no_table(path, f"{count} clips, {predicted} were predicted")
    foreign = sorted(set(table["split"]) - {"test", "validation"})
    if foreign:
        raise InputError(f"{path} has split {foreign[0]!r}: expected test or validation")
    _refuse_repeats(path, table)
    test, validation = (
        _part(path, _where(table, "split", split), split, labels, splits[split])
        for split in ("test", "validation")
    )
    if not test.clips:
        raise InputError(f"{path} has no test clip: expected those of the fold's test actors; {AGAIN}")
    return test, validation


def read_conditions(path: Path, labels: LabelSet, test: Predictions) -> dict[str, Predictions]:
    """The test clips once more under each condition of bad input; empty where the run was not scored so.

    Raises:
        InputError: the file is cut, is no such table, or a condition has other clips than the test.
    """
    if not path.exists():
        return {}
    table = _read(path, ("clip", "actor", "condition", "label"), labels)
    actors = list(dict.fromkeys(test.actors))
    truth = dict(zip(test.clips, test.labels.tolist(), strict=True))
    found = {}
    for condition in conditions_of([sorted(set(table["condition"]))]):
        rows = _where(table, "condition", condition)
        _refuse_repeats(path, rows)
        part = _part(path, rows, condition, labels, actors)
        if dict(zip(part.clips, part.labels.tolist(), strict=True)) != truth:
            raise InputError(
                f"{path}: condition {condition} has {len(part.clips)} clips, expected the {len(truth)} "
                f"of the test with their labels: {AGAIN}"
            )
        found[condition] = part
    return found


def _read(path: Path, texts: Sequence[str], labels: LabelSet) -> Lines:
    """A table of clips with a column of log-probabilities for each emotion."""
    expected = [*texts, *labels.emotions]
    try:
        with path.open(newline="", encoding="utf-8") as file:
            content = file.read()
        if not content.endswith("\n"):
            raise ValueError("it does not end with a line's end, so it was cut off")
        header, *rows = csv.reader(io.StringIO(content, newline=""))
        if header != expected:
            raise ValueError(f"columns {','.join(header)}, expected {','.join(expected)}")
        for number, row in enumerate(rows, start=2):
            if len(row) != len(expected):
                raise ValueError(f"line {number} has {len(row)} cells, expected {len(expected)}")
        cells = np.array(rows, dtype=object).reshape(-1, len(expected))
        table = {name: cells[:, place] for place, name in enumerate(texts)}
        table[LOGS] = cells[:, len(texts) :].astype(float)
    except (OSError, ValueError, csv.Error) as error:
        raise _no_table(path, " ".join(str(error).split())) from None
    try:
        probabilities(table[LOGS])
        for emotion in dict.fromkeys(table["label"]):
            labels.index(emotion)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    return table


def _where(lines: Lines, column: str, value: str) -> Lines:
    """The lines that have a value in a column."""
    return {name: cells[lines[column] == value] for name, cells in lines.items()}


def _part(path: Path, rows: Lines, what: str, labels: LabelSet, actors: Sequence[Actor]) -> Predictions:
    known = {str(actor): actor for actor in actors}
    strangers = sorted(set(rows["actor"]) - set(known))
    if strangers:
        raise InputError(
            f"{path} has a {what} clip of actor {strangers[0]}, not among the {what} actors "
            "in run.json: the folds leak; train the run again"
        )
    index = {emotion: place for place, emotion in enumerate(labels.emotions)}
    truth: Ints = np.array([index[emotion] for emotion in rows["label"]], dtype=np.int64)
    return Predictions(
        clips=tuple(rows["clip"]),
        actors=tuple(known[actor] for actor in rows["actor"]),
        labels=truth,
        log_probabilities=rows[LOGS],
    )


def _refuse_repeats(path: Path, rows: Lines) -> None:
    for clip, count in Counter(rows["clip"]).items():
        if count > 1:
            raise InputError(f"{path} has clip {clip!r} twice: expected each clip once")


def _no_table(path: Path, reason: str) -> InputError:
    return InputError(f"{path} is no table of predictions ({reason}): {AGAIN}")
