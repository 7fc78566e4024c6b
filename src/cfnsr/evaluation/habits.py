"""`docs/protocols.md`: what each habit of the field adds to a figure, measured on the same model."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cfnsr.errors import InputError
from cfnsr.evaluation.comparison import paired_interval
from cfnsr.evaluation.metrics import Floats
from cfnsr.evaluation.spread import Spread, over_folds
from cfnsr.evaluation.summary import Row
from cfnsr.evaluation.tables import NOTHING, cells, limits, mean_and_deviation, pair, percent

HONEST = "nested"


@dataclass(frozen=True)
class Habit:
    """A way to come to a figure.

    Args:
        protocol: its name on the command line.
        name: what a reader would call it.
        done: what is done, in a table's cell.
        about: why it flatters and who is hurt by it, for a reader of papers.
    """

    protocol: str
    name: str
    done: str
    about: str


HABITS = (
    Habit(
        HONEST,
        "honest: nested",
        "whole actors are tested; other actors choose the epoch; the rest train",
        "Nobody who is tested trains the model or chooses anything about it. This is the figure to expect of "
        "a person the model has never met, and the one all others on this page are held against.",
    ),
    Habit(
        "best_epoch_on_test",
        "best epoch on test",
        "the same folds; the epoch that does best on the test actors is reported",
        "The accuracy on a fold goes up and down from epoch to epoch by luck; taking the best one adds the "
        "best luck of all epochs to the figure, and the more epochs, the more of it. Hurt are those who "
        "choose their epoch on other actors and then look worse beside it, and whoever deploys the model: at "
        "home there is no test fold to choose by.",
    ),
    Habit(
        "paper",
        "the paper's protocol",
        "five folds of four actors, the last four never tested; best epoch on test",
        "As the released code of CFN-SR does it: the best epoch on the test fold, and twenty actors to train "
        "on where the honest protocol sets four aside to choose with. Part of the difference is therefore "
        "luck and part the larger training set; 'best epoch on test' above is the luck alone.",
    ),
    Habit(
        "shared_actors",
        "actors on both sides",
        "clips are dealt at random: every tested actor was also trained on",
        "A voice or a face that was trained on is easier to read: the model may compare a clip with the same "
        "actor's other emotions instead of knowing the emotion. Such a figure holds for the actors of the "
        "corpus alone. Hurt is everyone who is not one of them, which is every user.",
    ),
    Habit(
        "repeated_takes",
        "takes on both sides",
        "every take stands in the corpus twice, dealt at random: most tested takes were trained on",
        "RAVDESS holds each take as video with sound and once more as sound alone, and augmented copies are "
        "often made before the split; dealt at random, a copy of most test clips is in the training set. The "
        "model then remembers recordings. Hurt is everyone: the figure says nothing about any other "
        "recording. `cfnsr check-split` finds such copies by their content.",
    ),
)
COMMANDS = tuple(
    f"cfnsr crossval audio --data prepared --out runs --protocol {habit.protocol}" for habit in HABITS
)


def page(rows: Sequence[Row], commands: Sequence[str] = COMMANDS) -> str:
    """The page in Markdown, from the runs of one or more models under several protocols.

    Args:
        rows: of `summarise`; models that were run under one protocol alone are passed over.
        commands: what made the runs, a line each.

    Raises:
        InputError: no model was run under several protocols, or its runs are of another corpus or preset.
    """
    ladders = {}
    for model in dict.fromkeys(row.model for row in rows):
        ladder = {row.protocol: row for row in rows if row.model == model}
        if len(ladder.keys() & {habit.protocol for habit in HABITS}) > 1:
            _check_alike(ladder.values())
            ladders[model] = ladder
    if not ladders:
        raise InputError(
            "no model was run under several protocols: expected one with runs under "
            f"{', '.join(habit.protocol for habit in HABITS)}; run `{COMMANDS[1]}`"
        )
    shown = {protocol for ladder in ladders.values() for protocol in ladder}
    parts = ["# What a protocol adds to a figure", INTRODUCTION]
    for model, ladder in ladders.items():
        parts += [f"## {model}", _about(ladder), _table(ladder), _sentence(ladder)]
    parts += [READING, "## The habits"]
    parts += [
        f"**{habit.name}** (`{habit.protocol}`). {habit.about}" for habit in HABITS if habit.protocol in shown
    ]
    parts += ["## How these figures were made", "```\n" + "\n".join(commands) + "\n```"]
    return "\n\n".join(parts) + "\n"


INTRODUCTION = (
    "An accuracy belongs to a model *and* to the way it was come by. Below, the same model is trained with "
    "the same settings on the same recordings; only the habit changes. A figure that needs a caveat has it "
    "in its line."
)
READING = (
    "Accuracy is the mean ± deviation over folds; the 95 % interval resamples whole actors. 'Adds' is the "
    "difference to the honest figure in points, actor by actor, over the actors that both test, with its 95 "
    "% interval by resampling those actors; without an interval it is the difference of the two means. The "
    "interval is of one training each: another seed moves every line a little."
)


def _table(ladder: Mapping[str, Row]) -> str:
    head = ["habit", "what is done", "caveat", "accuracy %", "95 % interval by actor", "adds, in points"]
    honest = ladder.get(HONEST)
    lines = []
    for habit in HABITS:
        row = ladder.get(habit.protocol)
        if row is None:
            continue
        if habit.protocol == "best_epoch_on_test":
            lines += list(_last_epoch(row, honest))
        spread = row.spreads["accuracy"]
        missing = "" if row.complete else f" ({row.progress})"
        adds = _adds(row, honest) if row is not honest else NOTHING
        lines.append(
            [
                habit.name,
                habit.done,
                row.caveat or "none",
                mean_and_deviation(spread) + missing,
                limits(spread),
                adds,
            ]
        )
    return cells(head, lines, texts=3)


def _last_epoch(row: Row, honest: Row | None) -> Iterator[list[str]]:
    """The same trainings read at their last epoch, which nobody chose, where their history tells it."""
    values = [run.history[-1].get("test_accuracy") for run in row.runs]
    if any(value is None for value in values):
        return
    mean, std = over_folds(row.runs, [float(value) for value in values if value is not None])
    adds = NOTHING if honest is None else percent(mean - honest.spreads["accuracy"].mean, signed=True)
    done = "the trainings of the next line, read at their last epoch: a number fixed beforehand"
    accuracy = mean_and_deviation(Spread(mean, std, None))
    yield ["honest: last epoch", done, "none", accuracy, NOTHING, adds]


def _adds(row: Row, honest: Row | None) -> str:
    if honest is None:
        return NOTHING
    differences = _differences(row, honest)
    if not len(differences):
        return percent(row.spreads["accuracy"].mean - honest.spreads["accuracy"].mean, signed=True)
    mean, ci95 = float(differences.mean()), paired_interval(differences)
    fewer = f", {len(differences)} actors" if len(differences) < len(honest.actors) else ""
    return f"{percent(mean, signed=True)} ({pair(ci95, signed=True)}){fewer}"


def _differences(row: Row, honest: Row) -> Floats:
    """Each actor's accuracy under a habit less the honest one, over the actors that both test."""
    ours, theirs = row.accuracy_of, honest.accuracy_of
    return np.array([ours[actor] - theirs[actor] for actor in ours if actor in theirs])


def _sentence(ladder: Mapping[str, Row]) -> str:
    honest = ladder.get(HONEST)
    others = [row for protocol, row in ladder.items() if protocol != HONEST]
    if honest is None:
        return f"The honest figure is missing: run `{COMMANDS[0].replace('audio', others[0].model)}`."
    highest = max(others, key=lambda row: row.spreads["accuracy"].mean)
    spread, lowest = highest.spreads["accuracy"], honest.spreads["accuracy"]
    return (
        f"From {percent(lowest.mean)} % to {percent(spread.mean)} % ({highest.protocol}; {highest.caveat}) "
        "without a change to the model."
    )


def _about(ladder: Mapping[str, Row]) -> str:
    row = ladder.get(HONEST) or next(iter(ladder.values()))
    run = row.runs[0]
    return (
        f"Corpus {run.corpus}, {len(row.actors)} actors tested, {len(row.emotions)} emotions (chance "
        f"{percent(1 / len(row.emotions))} %), preset {run.preset}, {run.epochs} epochs, "
        f"seed{'s' if len(row.seeds) > 1 else ''} {', '.join(map(str, row.seeds))}."
    )


def _check_alike(rows: Iterable[Row]) -> None:
    first, *others = (row.runs[0] for row in rows)
    for run in others:
        for what in ("corpus", "fingerprint", "preset", "epochs"):
            if getattr(run, what) != getattr(first, what):
                raise InputError(
                    f"{first.folder} and {run.folder} differ in {what}: expected runs that differ in the "
                    "protocol alone; run both with the same corpus and settings"
                )
