"""The audit of the exchange: its effect on a row's answers, and its gain over the best late rule."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

import numpy as np

from cfnsr.evaluation.comparison import Difference, compare, corrected
from cfnsr.evaluation.metrics import probabilities
from cfnsr.evaluation.names import entry_of
from cfnsr.evaluation.spread import over_folds
from cfnsr.training.interaction import DISTURBANCES
from cfnsr.training.run import Run

if TYPE_CHECKING:
    from cfnsr.evaluation.summary import Row

LATE = "late"  # the fusion of the rules that a fused row is held against
FEWEST_CHANGED = 0.01  # of the answers: an exchange that changes fewer has hardly any part in them


@dataclass(frozen=True)
class Effect:
    """The change of the answers to the test clips under a disturbance.

    Args:
        changed: share of the answers that become another emotion, mean over folds.
        moved: mean absolute change of an emotion's probability.
    """

    changed: float
    moved: float


@dataclass(frozen=True)
class Interaction:
    """The audit of one row.

    Args:
        effects: by disturbance; empty for a row whose modalities meet in a sum alone.
        entropy: of the attention weights, from 0 for a single place to 1 for uniform weights; None without.
        late: the late rule on the same encoders that has the highest accuracy on the inner validation clips;
            "" where none was run.
        beyond: the row's accuracy less that rule's on the test clips, or why they are not compared.
    """

    effects: Mapping[str, Effect]
    entropy: float | None
    late: str
    beyond: Difference | str

    @property
    def inert(self) -> bool:
        """True where the exchange has hardly any part in the answers."""
        return bool(self.effects) and all(each.changed < FEWEST_CHANGED for each in self.effects.values())


def audits(rows: Sequence["Row"], margin: float) -> list[Interaction | None]:
    """The audit of each row; p of what is beyond late fusion has Holm's correction over a protocol's rows."""
    found = [_audit(row, rows, margin) for row in rows]
    for protocol in {row.protocol for row in rows}:
        places = [at for at, each in enumerate(found) if each is not None and rows[at].protocol == protocol]
        beyond = corrected([cast(Interaction, found[at]).beyond for at in places])
        for at, versus in zip(places, beyond, strict=True):
            found[at] = replace(cast(Interaction, found[at]), beyond=versus)
    return found


def _audit(row: "Row", rows: Sequence["Row"], margin: float) -> Interaction | None:
    """The audit of a two-stream row beside the late rules of the same encoders; None for one modality."""
    if not all(row.encoders) or row.fusion in (None, "none"):
        return None
    effects = {}
    for how in DISTURBANCES:
        if all(how in run.interaction for run in row.runs):
            each = [_effect(run, how) for run in row.runs]
            effects[how] = Effect(
                over_folds(row.runs, [one.changed for one in each])[0],
                over_folds(row.runs, [one.moved for one in each])[0],
            )
    entropies = [run.attention_entropy for run in row.runs if run.attention_entropy is not None]
    late = _best_late_rule(row, rows)
    return Interaction(
        effects,
        float(np.mean(entropies)) if entropies else None,
        late.model if late is not None else "",
        "no late rule on these encoders was run" if late is None else compare(row, late, margin),
    )


def _effect(run: Run, how: str) -> Effect:
    """Of one run; the disturbed answers stand in the order of the test's."""
    place = {clip: index for index, clip in enumerate(run.interaction[how].clips)}
    before = probabilities(run.test.log_probabilities)
    after = probabilities(run.interaction[how].log_probabilities)[[place[clip] for clip in run.test.clips]]
    return Effect(
        float(np.mean(before.argmax(axis=1) != after.argmax(axis=1))), float(np.abs(before - after).mean())
    )


def _best_late_rule(row: "Row", rows: Sequence["Row"]) -> "Row | None":
    """Chosen by the inner validation clips; None where none of them was run under this protocol."""
    rules = [
        each
        for each in rows
        if each.fusion == LATE
        and each is not row
        and (each.protocol, _parts(each)) == (row.protocol, _parts(row))
        and each.validation_accuracy is not None
    ]
    return max(rules, key=lambda each: each.validation_accuracy or 0.0, default=None)


def _parts(row: "Row") -> tuple[object, ...]:
    """The encoders of a row, and the models of one modality that it starts from."""
    found = entry_of(row.model)
    return row.encoders, found and found.starts_from
