"""`docs/protocols.md`: what each habit of the field adds to a figure, measured on the same model."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cfnsr.errors import InputError
from cfnsr.evaluation.comparison import paired_interval
from cfnsr.evaluation.metrics import Floats
from cfnsr.evaluation.spread import Spread, over_folds
from cfnsr.evaluation.summary import Row, different_settings, has_one_modality, trained_otherwise
from cfnsr.evaluation.tables import NOTHING, cells, limits, mean_and_deviation, pair, percent, safe

HONEST = "nested"


@dataclass(frozen=True)
class Habit:
    """A way to come to a figure.

    Args:
        protocol: its name on the command line.
        name: what a reader would call it.
        done: what is done, in a table's cell.
        about: why it flatters and who is hurt by it, for a reader of papers.
        over: the protocol it goes a step further than; what it adds to that one is shown as well.
        besides: what else changes with it.
    """

    protocol: str
    name: str
    done: str
    about: str
    over: str = ""
    besides: str = ""


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
        "luck and part the larger training set; 'best epoch on test' above is the luck alone, and what this "
        "line adds to that one is the larger training set and the steps that come with it.",
        over="best_epoch_on_test",
        besides="a quarter more clips to train on and so more steps an epoch",
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
        "every take stands in the corpus twice, dealt at random: two of three tested takes were trained on",
        "RAVDESS holds each take as video with sound and once more as sound alone, and augmented copies are"
        " often made before the split; dealt at random into six folds, a copy of two in three test clips is"
        " in the training set. The model then remembers recordings. Here every take simply counts twice, so"
        " this is 'actors on both sides' and a step further, and is held against that line as well. More "
        "than the copies on the other side comes with that step, as it does where the habit is practised: "
        "an epoch has twice the clips, so the model takes twice the optimiser steps, and 8/9 of the takes "
        "are trained on in one copy or both, not 2/3. How much of the step is due to each of the three "
        "these figures do not tell. Hurt is everyone: the figure says nothing about any other recording. "
        "`cfnsr check-split` finds such copies by their content.",
        over="shared_actors",
        besides="twice the optimiser steps an epoch, and 8/9 of the takes to train on, not 2/3",
    ),
)
COMMANDS = tuple(
    f"cfnsr crossval audio --data prepared --out runs --protocol {habit.protocol}" for habit in HABITS
)


NAMES = {habit.protocol: habit.name for habit in HABITS}
TWIN = (
    "RAVDESS itself holds one recording twice: 03-01-03-01-02-01-07 and 03-01-03-01-02-02-07 are the same "
    "byte for byte, as `cfnsr check-split` finds. Both are of actor 7, so they never stand on two sides of "
    "a fold of whole actors; where clips are dealt at random they may."
)


def page(rows: Sequence[Row], commands: Sequence[str] = COMMANDS) -> str:
    """The page in Markdown, from the runs of one or more models under several protocols.

    Args:
        rows: of `summarise`; models that were run under one protocol alone are passed over.
        commands: what made the runs, a line each.

    Raises:
        InputError: no model was run under several protocols, or its runs are of another corpus, preset or
            other settings.
    """
    ladders = {}
    for model in dict.fromkeys(row.model for row in rows):
        found = {row.protocol: row for row in rows if row.model == model}
        ladder = {protocol: found[protocol] for protocol in NAMES if protocol in found}
        if len(ladder) > 1:
            _check_alike(list(ladder.values()))
            ladders[model] = ladder
    if not ladders:
        raise InputError(
            "no model was run under several protocols: expected one with runs under "
            f"{', '.join(NAMES)}; run `{COMMANDS[1]}`"
        )
    shown = [row for ladder in ladders.values() for row in ladder.values()]
    parts = ["# What a protocol adds to a figure", INTRODUCTION]
    for model, ladder in ladders.items():
        parts += [f"## {safe(model)}", _about(ladder), _table(ladder), _sentence(ladder)]
    parts += [READING, REPEATED]
    if any(row.runs[0].corpus.lower() == "ravdess" for row in shown):
        parts.append(TWIN)
    protocols = {row.protocol for row in shown}
    parts.append("## The habits")
    parts += [
        f"**{habit.name}** (`{habit.protocol}`). {habit.about}"
        for habit in HABITS
        if habit.protocol in protocols
    ]
    parts += ["## How these figures were made", "```\n" + "\n".join(commands) + "\n```"]
    return "\n\n".join(filter(None, parts)) + "\n"


INTRODUCTION = (
    "An accuracy belongs to a model *and* to the way it was come by. Below, the same model is trained with "
    "the same settings on the same recordings; what changes is who trains, who chooses the epoch and who is "
    "tested. Where more than that changes with a habit its line says so after 'and with it'. A figure that "
    "needs a caveat has it in its line."
)
READING = (
    "Accuracy is the mean ± deviation over folds; the 95 % interval resamples whole actors. 'Adds' is the "
    "difference to the honest figure in points, actor by actor, over the actors that both test, with its 95 "
    "% interval by resampling those actors; a habit that goes a step further than another has the difference "
    "to that line behind it. Without an interval it is the difference of the two means."
)
REPEATED = (
    "The intervals are over actors, of the trainings that were done; they do not cover what doing these "
    "again would change. The same training repeated with another seed, or on a CPU with another number of "
    "threads, moves such a figure by one to two points: a difference of that size tells nothing here."
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
        adds = _adds(row, honest, NAMES[HONEST]) if row is not honest else NOTHING
        if habit.over in ladder:
            further = _adds(row, ladder[habit.over], NAMES[habit.over])
            adds += f"; over '{NAMES[habit.over]}' {further}"
        lines.append(
            [
                habit.name,
                habit.done + (f"; and with it {habit.besides}" if habit.besides else ""),
                row.caveat or "none",
                mean_and_deviation(spread) + _missing(row),
                limits(spread),
                adds,
            ]
        )
    return cells(head, lines, texts=3)


def _missing(row: Row) -> str:
    return "" if row.complete else f" ({row.progress})"


def _last_epoch(row: Row, honest: Row | None) -> Iterator[list[str]]:
    """The same trainings read at their last epoch, which nobody chose, where their history tells it.

    A model that started from encoders whose own epoch was chosen on the test fold has no such epoch.
    """
    if row.runs[0].settings.get("pretrain") is not False and not has_one_modality(row.model):
        return
    values = [run.history[-1].get("test_accuracy") for run in row.runs]
    if any(value is None for value in values):
        return
    mean, std = over_folds(row.runs, [float(value) for value in values if value is not None])
    done = "the trainings of the next line, read at their last epoch: a number fixed beforehand"
    accuracy = mean_and_deviation(Spread(mean, std, None)) + _missing(row)
    adds = NOTHING
    if honest is not None and _cells(row) == _cells(honest):
        adds = percent(mean - honest.spreads["accuracy"].mean, signed=True)
    yield ["honest: last epoch", done, "none", accuracy, NOTHING, adds]


def _cells(row: Row) -> set[tuple[int, int]]:
    """Which folds were trained with which seeds."""
    return {(run.seed, run.fold) for run in row.runs}


def _adds(row: Row, base: Row | None, called: str) -> str:
    """What a row adds to another one, or why the two are not compared."""
    if base is None:
        return NOTHING
    otherwise = trained_otherwise(row, base, f"'{called}'")
    if otherwise:
        return f"not compared: {otherwise}"
    differences = _differences(row, base)
    if not len(differences):
        return "not compared: no tested actor in common"
    mean, ci95 = float(differences.mean()), paired_interval(differences)
    fewer = f", {len(differences)} actors" if len(differences) < len(base.actors) else ""
    return f"{percent(mean, signed=True)} ({pair(ci95, signed=True)}){fewer}"


def _differences(row: Row, base: Row) -> Floats:
    """Each actor's accuracy under a habit less that in the other row, over the actors that both test."""
    ours, theirs = row.accuracy_of, base.accuracy_of
    return np.array([ours[actor] - theirs[actor] for actor in ours if actor in theirs])


def _sentence(ladder: Mapping[str, Row]) -> str:
    honest = ladder.get(HONEST)
    if honest is None:
        first = next(iter(ladder.values()))
        return f"The honest figure is missing: run `{COMMANDS[0].replace('audio', first.model)}`."
    others = {
        habit: ladder[habit.protocol]
        for habit in HABITS
        if habit.protocol in ladder.keys() - {HONEST}
        and not trained_otherwise(ladder[habit.protocol], honest, "")
    }
    if not others:
        return ""
    habit, highest = max(others.items(), key=lambda item: item[1].spreads["accuracy"].mean)
    besides = f"; with the habit come {habit.besides}" if habit.besides else ""
    return (
        f"From {percent(honest.spreads['accuracy'].mean)} % to {percent(highest.spreads['accuracy'].mean)} % "
        f"({habit.name}; {safe(highest.caveat)}) with the same model and settings{besides}."
    )


def _about(ladder: Mapping[str, Row]) -> str:
    row = ladder.get(HONEST) or next(iter(ladder.values()))
    run = row.runs[0]
    seeds = [f"{each.seeds_label} ({NAMES[protocol]})" for protocol, each in ladder.items()]
    if len({each.seeds for each in ladder.values()}) == 1:
        seeds = [f"{row.seeds_label} in every line"]
    return (
        f"Corpus {safe(run.corpus)}, {len(row.actors)} actors tested, {len(row.emotions)} emotions (chance "
        f"{percent(1 / len(row.emotions))} %), preset {safe(run.preset)}, {run.epochs} epochs, "
        f"{', '.join(seeds)}."
    )


def _check_alike(rows: Sequence[Row]) -> None:
    first = rows[0].runs[0]
    for row in rows[1:]:
        run = row.runs[0]
        apart = [
            what
            for what in ("corpus", "fingerprint", "clips", "labels", "preset", "epochs", "source")
            if getattr(run, what) != getattr(first, what)
        ]
        apart += [
            f"{name} ({' and '.join(values)})" for name, values in different_settings(rows[0], row).items()
        ]
        if apart:
            raise InputError(
                f"{first.folder} and {run.folder} differ in {apart[0]}: expected runs that differ in the "
                "protocol alone; run both with the same corpus and settings"
            )
