"""The predictions of a run, read back from its CSV files and checked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cfnsr.corpus.take import Actor
from cfnsr.emotions import LabelSet
from cfnsr.errors import InputError
from cfnsr.evaluation.metrics import Floats, Ints, probabilities

if TYPE_CHECKING:
    import pandas as pd

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


@dataclass(frozen=True, eq=False)
class Predictions:
    """The clips of one split: `clips`, `actors` and `labels` (N,), `log_probabilities` (N, classes)."""

    clips: tuple[str, ...]
    actors: tuple[Actor, ...]
    labels: Ints
    log_probabilities: Floats


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
    if predicted is not None and len(table) != predicted:
        raise _no_table(path, f"{len(table)} clips, {predicted} were predicted")
    foreign = sorted(set(table["split"]) - {"test", "validation"})
    if foreign:
        raise InputError(f"{path} has split {foreign[0]!r}: expected test or validation")
    _refuse_repeats(path, table["clip"])
    test, validation = (
        _part(path, table[table["split"] == split], split, labels, splits[split])
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
    for condition in sorted(table["condition"].unique(), key=_place):
        rows = table[table["condition"] == condition]
        _refuse_repeats(path, rows["clip"])
        part = _part(path, rows, condition, labels, actors)
        if dict(zip(part.clips, part.labels.tolist(), strict=True)) != truth:
            raise InputError(
                f"{path}: condition {condition} has {len(part.clips)} clips, expected the {len(truth)} "
                f"of the test with their labels: {AGAIN}"
            )
        found[str(condition)] = part
    return found


def _place(condition: str) -> tuple[int, str]:
    known = list(CONDITIONS)
    return known.index(condition) if condition in known else len(known), condition


def _read(path: Path, texts: Sequence[str], labels: LabelSet) -> "pd.DataFrame":
    """A table of clips with a column of log-probabilities for each emotion."""
    import pandas as pd

    expected = [*texts, *labels.emotions]
    types: dict[str, Any] = dict.fromkeys(texts, str) | dict.fromkeys(labels.emotions, float)
    try:
        with path.open("rb") as file:
            header = file.readline()
            file.seek(-1, 2)
            if file.read() != b"\n":
                raise ValueError("it does not end with a line's end, so it was cut off")
        found = header.decode().rstrip("\r\n").split(",")
        if found != expected and pd.read_csv(path, nrows=0).columns.tolist() != expected:
            raise ValueError(f"columns {','.join(found)}, expected {','.join(expected)}")
        # Only numbers may be missing: an actor called NA is an actor.
        table = pd.read_csv(
            path, dtype=types, keep_default_na=False, na_values=dict.fromkeys(labels.emotions, "")
        )
    except (OSError, ValueError) as error:  # pandas' own errors are ValueErrors
        raise _no_table(path, " ".join(str(error).split())) from None
    try:
        probabilities(table[list(labels.emotions)].to_numpy())
        for emotion in table["label"].unique():
            labels.index(emotion)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    return table


def _part(
    path: Path, rows: "pd.DataFrame", what: str, labels: LabelSet, actors: Sequence[Actor]
) -> Predictions:
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
        log_probabilities=rows[list(labels.emotions)].to_numpy(dtype=float),
    )


def _refuse_repeats(path: Path, clips: "pd.Series[str]") -> None:
    twice = clips.duplicated()
    if twice.any():
        raise InputError(f"{path} has clip {clips[twice].iloc[0]!r} twice: expected each clip once")


def _no_table(path: Path, reason: str) -> InputError:
    return InputError(f"{path} is no table of predictions ({reason}): {AGAIN}")
