"""`results.json`: every figure of the report for other people's scripts. Keys are added, never changed."""

from collections.abc import Sequence
from typing import Any

from cfnsr.evaluation.calibration import Answered, Calibration
from cfnsr.evaluation.comparison import Comparison, Difference
from cfnsr.evaluation.interaction import Interaction
from cfnsr.evaluation.layout import layout
from cfnsr.evaluation.names import Encoders
from cfnsr.evaluation.runs import Unfinished
from cfnsr.evaluation.spread import Spread
from cfnsr.evaluation.summary import Row

VERSION = 1


def results(
    rows: Sequence[Row], unfinished: Sequence[Unfinished] = (), compared: Sequence[Comparison] = ()
) -> dict[str, Any]:
    """All figures as fractions, one row a model and protocol.

    `interaction` is None for a row of one modality, else by disturbance of the exchange the share of answers
    that change and the mean change of a probability; `beyond_late` is the difference to the late rule `late`.
    `tables` lists the paper's tables, line by line, by the models' names, and those of other encoders;
    `encoders` are those of video and audio, None for a modality that the model does not use;
    `difference_to_cfn_sr` is to CFN-SR with the same encoders, None where there is none; `comparisons` are
    those that were asked for, of `a` less `b`, with a `reason` and no figures where nothing can be said.
    `ci95` is [None, None] of fewer than eight actors. `calibration` has "tempered" figures, and
    `abstention` has entries, only where the protocol leaves validation clips; `confusion`
    counts clips by acted (rows) and predicted emotion (columns), averaged over seeds, `actors` has each
    tested actor's accuracy, and `last_epoch_test_accuracy` is None where no epoch was tested.
    `validation_accuracy` is over the inner validation clips, by which rows may be chosen; None without any.
    """
    return {
        "version": VERSION,
        "rows": [_row(row) for row in rows],
        "tables": [
            {
                "name": group.name,
                "encoders": _encoders(group.pair),
                "lines": [{"title": place.title, "model": place.model} for place in group.places],
            }
            for group in layout(rows)
        ],
        "comparisons": [_comparison(each) for each in compared],
        "unfinished": [{"folder": run.folder.as_posix(), "reason": run.reason} for run in unfinished],
    }


def _row(row: Row) -> dict[str, Any]:
    paper = None if row.paper is None else {"accuracy": row.paper.accuracy, "params": row.paper.params}
    return {
        "model": row.model,
        "encoders": _encoders(row.encoders),
        "fusion": row.fusion,
        "protocol": row.protocol,
        "optimistic": row.runs[0].optimistic,
        "caveat": row.caveat,
        "seeds": list(row.seeds),
        "params": row.runs[0].params,
        "trained_params": row.runs[0].trained_params,
        **{name: _spread(spread) for name, spread in row.spreads.items()},
        "difference_to_cfn_sr": _difference(row.versus),
        "validation_accuracy": row.validation_accuracy,
        "folds": [
            {
                "fold": run.fold,
                "seed": run.seed,
                **figures,
                "test_actors": list(run.test_actors),
                "epoch": run.epoch,
                "seconds": run.seconds,
                "last_epoch_test_accuracy": run.history[-1].get("test_accuracy"),
            }
            for run, figures in zip(row.runs, row.fold_figures, strict=True)
        ],
        "paper": paper,
        "comparable": not row.incomparable,
        "complete": row.complete,
        "preset": row.runs[0].preset,
        "corpus": row.runs[0].corpus,
        "calibration": _calibration(row.calibration),
        "abstention": [{"wanted": each.wanted, **_answered(each)} for each in row.calibration.abstention],
        "conditions": {name: _spread(spread) for name, spread in row.conditions.items()},
        "interaction": _interaction(row.interaction),
        "emotions": list(row.emotions),
        "confusion": row.tally.actors.pooled().confusion.tolist(),
        "actors": {str(actor): share for actor, share in row.accuracy_of.items()},
    }


def _interaction(found: Interaction | None) -> dict[str, Any] | None:
    if found is None:
        return None
    return {
        **{how: {"changed": each.changed, "moved": each.moved} for how, each in found.effects.items()},
        "entropy": found.entropy,
        "inert": found.inert,
        "late": found.late or None,
        "beyond_late": _difference(found.beyond),
        "reason": found.beyond if isinstance(found.beyond, str) else None,
    }


def _encoders(encoders: Encoders) -> dict[str, str | None]:
    return {"video": encoders.video or None, "audio": encoders.audio or None}


def _spread(spread: Spread) -> dict[str, Any]:
    return {"mean": spread.mean, "std": spread.std, "ci95": list(spread.ci95 or (None, None))}


def _difference(versus: Difference | str) -> dict[str, Any] | None:
    if isinstance(versus, str):
        return None
    return {
        "mean": versus.mean,
        "ci95": list(versus.ci95),
        "p": versus.p,
        "p_holm": versus.p_holm,
        "equivalence": {"margin": versus.margin, "p": versus.p_equivalent},
        "folds": versus.folds,
        "actors": versus.actors,
    }


def _comparison(each: Comparison) -> dict[str, Any]:
    figures = dict.fromkeys(("mean", "ci95", "p", "p_holm", "equivalence", "folds", "actors"))
    return {
        "a": each.a,
        "b": each.b,
        "protocol": each.protocol,
        **(_difference(each.found) or figures),
        "reason": each.found if isinstance(each.found, str) else None,
    }


def _calibration(found: Calibration) -> dict[str, Any]:
    scores = {"ece": found.ece, "nll": found.nll, "brier": found.brier}
    return {
        **{name: {kind: _spread(each) for kind, each in score.items()} for name, score in scores.items()},
        "temperatures": [
            {"fold": run.fold, "seed": run.seed, "temperature": temperature}
            for run, temperature in zip(found.runs, found.temperatures, strict=False)
        ],
        "reason": found.reason or None,
        "curve": [{"threshold": each.threshold, **_answered(each)} for each in found.curve],
    }


def _answered(each: Answered) -> dict[str, Any]:
    return {
        "coverage": {"mean": each.coverage, "ci95": list(each.coverage_ci95 or (None, None))},
        "accuracy": {"mean": each.accuracy, "ci95": list(each.accuracy_ci95 or (None, None))},
    }
