"""What is left of a row's accuracy when a modality is bad or missing, or a speaker known by few takes."""

from collections.abc import Mapping, Sequence

from cfnsr.corpus.take import Actor
from cfnsr.evaluation.predictions import CLEAN, CONDITIONS
from cfnsr.evaluation.runs import Run
from cfnsr.evaluation.spread import Spread, Tally, tally

MEANINGS: Mapping[str, str] = {CLEAN: "the test clips as they are", **CONDITIONS}


def label(condition: str) -> str:
    """A condition in words.

    >>> label("noise_20db"), label("silent_sound")
    ('noise 20 dB', 'silent sound')
    """
    return condition.replace("_", " ").replace("0db", "0 dB")


def under_conditions(clean: Tally, actors: Sequence[Actor]) -> dict[str, Spread]:
    """Accuracy on the clean test clips, then under each condition that every run was scored with.

    A run without `conditions.csv` (older than it, or still without) leaves the row with nothing: a mean
    over other folds would compare actors, not conditions.
    """
    scored = [set(run.conditions) for run in clean.runs]
    common = set.intersection(*scored)
    if not common:
        return {}
    found = {CLEAN: clean.spread("accuracy")}
    for condition in clean.runs[0].conditions:
        if condition in common:
            parts = [run.conditions[condition] for run in clean.runs]
            found[condition] = tally(clean.runs, parts, actors).spread("accuracy")
    return found


def conditions_of(rows: Sequence[Mapping[str, Spread]]) -> list[str]:
    """All conditions of some rows: clean first, then in the order of the report."""
    there = dict.fromkeys(condition for row in rows for condition in row)
    known = [condition for condition in (CLEAN, *CONDITIONS) if condition in there]
    return known + [condition for condition in there if condition not in known]


def partly_scored(runs: Sequence[Run]) -> bool:
    """Whether some runs were scored under bad input and others were not."""
    return len({frozenset(run.conditions) for run in runs}) > 1
