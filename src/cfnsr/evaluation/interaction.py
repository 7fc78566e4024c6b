"""The audit of the exchange: its effect on a row's answers, and its gain over the best late rule."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from cfnsr.evaluation.comparison import Difference, compare, corrected
from cfnsr.evaluation.encoders import entry_of
from cfnsr.evaluation.estimates import over_folds
from cfnsr.training.calibration import probabilities
from cfnsr.training.interaction import DISTURBANCES
from cfnsr.training.run import Run

if TYPE_CHECKING:
    from cfnsr.evaluation.rows import Row

FEWEST_CHANGED = 0.01  # of the answers: an exchange that changes fewer has hardly any part in them


@dataclass(frozen=True)
class Effect:
    """The change of the answers to the test clips under a disturbance, mean over folds."""

    changed: float  #: share of the answers that become another emotion
    moved: float  #: mean absolute change of an emotion's probability


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
    """Audit each row that has two modalities; Holm's correction is over the rows of a protocol."""
    found = [_audit(row, rows, margin) for row in rows]
    beyond = corrected([each.beyond if each else "" for each in found], [row.protocol for row in rows])
    return [each and replace(each, beyond=versus) for each, versus in zip(found, beyond, strict=True)]


def _audit(row: "Row", rows: Sequence["Row"], margin: float) -> Interaction | None:
    if not all(row.encoders) or row.fusion in (None, "none"):
        return None
    effects = {}
    for name in DISTURBANCES:
        if all(name in run.interaction for run in row.runs):
            changed, moved = zip(*(_effect(run, name) for run in row.runs), strict=True)
            effects[name] = Effect(over_folds(row.runs, changed).mean, over_folds(row.runs, moved).mean)
    entropies = [run.attention_entropy for run in row.runs if run.attention_entropy is not None]
    late = _best_late_rule(row, rows)
    return Interaction(
        effects,
        float(np.mean(entropies)) if entropies else None,
        late.model if late is not None else "",
        "no late rule on these encoders was run" if late is None else compare(row, late, margin),
    )


def _effect(run: Run, disturbance: str) -> tuple[float, float]:
    """Share of the answers of one run that change, and the mean change of a probability."""
    disturbed = run.interaction[disturbance]
    place = {clip: index for index, clip in enumerate(disturbed.clips)}
    before = probabilities(run.test.log_probabilities)
    after = probabilities(disturbed.log_probabilities)[[place[clip] for clip in run.test.clips]]
    return float(np.mean(before.argmax(axis=1) != after.argmax(axis=1))), float(np.abs(before - after).mean())


def _best_late_rule(row: "Row", rows: Sequence["Row"]) -> "Row | None":
    """Choose by the inner validation clips; None where no rule was run under this protocol."""

    def parts(each: "Row") -> tuple[object, ...]:
        """The encoders, and the models of one modality that it starts from."""
        entry = entry_of(each.model)
        return each.protocol, each.encoders, entry and entry.starts_from

    rules = [each for each in rows if each.fusion == "late" and each is not row and parts(each) == parts(row)]
    scored = [each for each in rules if each.validation_accuracy is not None]
    return max(scored, key=lambda each: each.validation_accuracy or 0.0, default=None)
