"""Do the frames of a take tell more than their mean? A section of `docs/ravdess-features.md`."""

from collections.abc import Mapping, Sequence

import numpy as np

from cfnsr.errors import InputError
from cfnsr.evaluation.comparison import FEWEST, paired_interval, sign_flip_p
from cfnsr.evaluation.features import LEVEL, accuracies, clips_of
from cfnsr.evaluation.names import title_of
from cfnsr.evaluation.summary import Row, different_settings
from cfnsr.evaluation.tables import cells, p_value, pair, percent, safe

ALONE = "leave_one_actor_out"


def sequence_page(sequence: Sequence[Row], means: Sequence[Row], commands: Sequence[str] = ()) -> str:
    """A section on whether the frames of a take tell more than their mean, under leave_one_actor_out.

    Args:
        sequence: rows of models that read the frames in their order, averaged to a number of steps.
        means: rows of the same models that read each take's mean.
        commands: what made both, a line each.

    Raises:
        InputError: no model was run in both ways, or the two ways tested other clips.
    """
    pairs = {
        row.model: (row, other)
        for row in sequence
        for other in means
        if row.model == other.model and row.protocol == other.protocol == ALONE
    }
    if not pairs:
        raise InputError(
            f"no model was run under the {ALONE} protocol with sequences and with their means: expected the "
            "same models in both folders of runs"
        )
    lines, said = [], []
    for model, (row, other) in pairs.items():
        if clips_of(row) != clips_of(other):
            raise InputError(
                f"{row.runs[0].folder} and {other.runs[0].folder} tested other clips: expected the same "
                "takes as sequences and as means"
            )
        differences = np.array([row.accuracy_of[actor] - other.accuracy_of[actor] for actor in row.actors])
        lines.append(
            [
                title_of(model),
                model,
                *accuracies(row, ""),
                *accuracies(other, ""),
                f"{percent(float(differences.mean()), signed=True)} "
                f"({pair(paired_interval(differences), signed=True)})",
                ", ".join(percent(float(value), signed=True) for value in differences),
                p_value(sign_flip_p(differences)),
            ]
        )
        otherwise = _trained_otherwise(row, other)
        if otherwise:
            said.append(f"{safe(model)}: {safe(otherwise)}.")
    row = next(iter(pairs.values()))[0]
    actors = len(row.actors)
    head = [
        "row",
        "model",
        "sequence: accuracy %",
        "95 % by actor",
        "its own mean: accuracy %",
        "95 % by actor",
    ]
    head += ["sequence less mean, points", "actor by actor", "p"]
    least = 2 / 2**actors
    told = (
        f"With {actors} actors the least p that the sign-flip test can give is {p_value(least)}"
        + (": it cannot show a difference here, however large" if least > LEVEL else "")
        + (
            ", and an interval that resamples so few actors is no more than a hint."
            if actors < FEWEST
            else "."
        )
    )
    parts = [
        "## A sequence against its own mean",
        f"The same models, trained and tested on the {len(clips_of(row))} takes of {actors} actors that have "
        f"frame-by-frame action units ({ALONE} protocol: one actor is tested, the next one is the inner "
        f"validation, {row.seeds_label}): once with {_parts(pairs)}, once with each take's mean over its "
        "frames, a sequence of one step.",
        cells(head, lines, texts=2),
        *said,
        "'Actor by actor' is the sequence's accuracy less the mean's of each tested actor "
        f"({', '.join(safe(str(actor)) for actor in row.actors)}). {told}",
        "```\n" + "\n".join(commands) + "\n```" if commands else "",
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


def _parts(pairs: Mapping[str, tuple[Row, Row]]) -> str:
    """What of a take the models of a sequence are given, by their settings."""
    steps = {run.settings.get("openface_steps") for row, _ in pairs.values() for run in row.runs}
    known = sorted(step for step in steps if isinstance(step, int))
    if len(known) < len(steps):
        return "the take's frames in their order"
    return f"the take's frames averaged in {' or '.join(map(str, known))} equal parts of it"


def _trained_otherwise(row: Row, other: Row) -> str:
    """Differences of settings but for those of the preparation, which is what is compared."""
    found = {
        name: values
        for name, values in different_settings(row, other).items()
        if not name.startswith("prepared ")
    }
    if row.seeds != other.seeds:
        found = {"seeds": (str(row.seeds), str(other.seeds)), **found}
    return "; ".join(f"{name} {ours} and {theirs}" for name, (ours, theirs) in found.items())
