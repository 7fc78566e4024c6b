"""The predictions of a run and the CSV files that keep them, a line a clip."""

import csv
import io
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cfnsr.corpus.take import Actor
from cfnsr.emotions import LabelSet
from cfnsr.errors import InputError
from cfnsr.files import from_cell, to_csv, write_text
from cfnsr.training.calibration import probabilities

AGAIN = "delete its folder and train it again"
CLIP, ACTOR, PART, LABEL = range(4)  # columns; those of the emotions follow

Floats = NDArray[np.float64]
Lines = list[list[str]]


@dataclass(frozen=True, eq=False)
class Predictions:
    """The clips of one split, or of the test under one condition."""

    clips: tuple[str, ...]  #: their names
    actors: tuple[Actor, ...]
    labels: NDArray[np.int64]  #: classes (N,)
    log_probabilities: Floats  #: natural logarithms (N, classes)

    @property
    def accuracy(self) -> float:
        """Fraction of right answers over all clips."""
        return float((self.log_probabilities.argmax(axis=1) == self.labels).mean())

    def of_corpus(self, name: str) -> "Predictions":
        """Keep the clips that `data.joined` names after a corpus."""
        places = [place for place, clip in enumerate(self.clips) if clip.startswith(f"{name}/")]
        return Predictions(
            clips=tuple(self.clips[place] for place in places),
            actors=tuple(self.actors[place] for place in places),
            labels=self.labels[places],
            log_probabilities=self.log_probabilities[places],
        )


def write_predictions(path: Path, column: str, labels: LabelSet, parts: Mapping[str, Predictions]) -> None:
    """Write clips whose split, or condition, stands in a column of that name."""
    written: list[list[object]] = [["clip", "actor", column, "label", *labels.emotions]]
    for name, part in parts.items():
        rows = zip(part.clips, part.actors, part.labels, part.log_probabilities, strict=True)
        for clip, actor, label, logs in rows:
            values = (f"{value:.7g}" for value in logs)
            written.append([clip, actor, name, labels.emotions[label], *values])
    write_text(path, to_csv(written))


def read_predictions(
    path: Path, labels: LabelSet, splits: Mapping[str, Sequence[Actor]], predicted: int | None = None
) -> tuple[Predictions, Predictions]:
    """Read the validation and the test predictions of a run.

    Args:
        splits: the actors of each split.
        predicted: number of clips, if that is known.

    Raises:
        InputError: the file is cut, is no such table, or has clips of other actors.
    """
    lines = _read(path, "split", labels)
    if predicted is not None and len(lines) != predicted:
        raise _no_table(path, f"{len(lines)} clips, {predicted} were predicted")
    foreign = sorted({line[PART] for line in lines} - {"test", "validation"})
    if foreign:
        raise InputError(f"{path} has split {foreign[0]!r}: expected test or validation")
    _refuse_repeats(path, lines)
    validation, test = (_part(path, lines, split, labels, splits[split]) for split in ("validation", "test"))
    if not test.clips:
        raise InputError(f"{path} has no test clip: expected those of the fold's test actors; {AGAIN}")
    return validation, test


def read_conditions(path: Path, labels: LabelSet, test: Predictions) -> dict[str, Predictions]:
    """Read the test clips under each condition; none where the run was not scored so.

    Raises:
        InputError: the file is cut, is no such table, or a condition has other clips than the test.
    """
    if not path.exists():
        return {}
    lines = _read(path, "condition", labels)
    truth = dict(zip(test.clips, test.labels.tolist(), strict=True))
    found = {}
    for condition in dict.fromkeys(line[PART] for line in lines):
        _refuse_repeats(path, (line for line in lines if line[PART] == condition))
        part = _part(path, lines, condition, labels, test.actors)
        if dict(zip(part.clips, part.labels.tolist(), strict=True)) != truth:
            raise InputError(
                f"{path}: condition {condition} has {len(part.clips)} clips, expected the {len(truth)} "
                f"of the test with their labels: {AGAIN}"
            )
        found[condition] = part
    return found


def _read(path: Path, column: str, labels: LabelSet) -> Lines:
    """Read the lines of a table, of which each is found to be whole and of probabilities."""
    expected = ["clip", "actor", column, "label", *labels.emotions]
    try:
        with path.open(newline="", encoding="utf-8") as file:
            content = file.read()
        if not content.endswith("\n"):
            raise ValueError("it does not end with a line's end, so it was cut off")
        cells = csv.reader(io.StringIO(content, newline=""))
        header, *lines = ([from_cell(cell) for cell in line] for line in cells)
        if header != expected:
            raise ValueError(f"columns {','.join(header)}, expected {','.join(expected)}")
        for number, line in enumerate(lines, start=2):
            if len(line) != len(expected):
                raise ValueError(f"line {number} has {len(line)} cells, expected {len(expected)}")
        logs = _logs(lines, labels)
    except (OSError, ValueError, csv.Error) as error:
        raise _no_table(path, " ".join(str(error).split())) from None
    try:
        probabilities(logs)
        for emotion in dict.fromkeys(line[LABEL] for line in lines):
            labels.index(emotion)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    return lines


def _logs(lines: Lines, labels: LabelSet) -> Floats:
    return np.array([line[LABEL + 1 :] for line in lines], dtype=float).reshape(-1, len(labels))


def _part(path: Path, lines: Lines, name: str, labels: LabelSet, actors: Sequence[Actor]) -> Predictions:
    """Predictions of a split or under a condition, of none but these actors."""
    lines = [line for line in lines if line[PART] == name]
    known = {str(actor): actor for actor in actors}
    strangers = sorted({line[ACTOR] for line in lines} - known.keys())
    if strangers:
        raise InputError(
            f"{path} has a {name} clip of actor {strangers[0]}, not among the {name} actors "
            "in run.json: the folds leak; train the run again"
        )
    return Predictions(
        clips=tuple(line[CLIP] for line in lines),
        actors=tuple(known[line[ACTOR]] for line in lines),
        labels=np.array([labels.index(line[LABEL]) for line in lines], dtype=np.int64),
        log_probabilities=_logs(lines, labels),
    )


def _refuse_repeats(path: Path, lines: Iterable[list[str]]) -> None:
    for clip, count in Counter(line[CLIP] for line in lines).items():
        if count > 1:
            raise InputError(f"{path} has clip {clip!r} twice: expected each clip once")


def _no_table(path: Path, reason: str) -> InputError:
    return InputError(f"{path} is no table of predictions ({reason}): {AGAIN}")
