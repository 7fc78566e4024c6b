"""`results.json`: every figure of the report for other people's scripts. Keys are added, never changed."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any

from cfnsr.evaluation.calibration import Answered, Calibration
from cfnsr.evaluation.comparison import Comparison, Difference
from cfnsr.evaluation.encoders import Encoders
from cfnsr.evaluation.estimates import Estimate
from cfnsr.evaluation.interaction import Interaction
from cfnsr.evaluation.paper_tables import layout
from cfnsr.evaluation.rows import Row
from cfnsr.evaluation.runs import Unfinished
from cfnsr.training.run import Run

VERSION = 1


def results(
    rows: Sequence[Row], unfinished: Sequence[Unfinished] = (), compared: Sequence[Comparison] = ()
) -> dict[str, Any]:
    """Collect all figures as fractions, one row a model and protocol.

    `interaction` is None for a row of one modality, else by disturbance of the exchange the share of answers
    that change and the mean change of a probability; `beyond_late` is the difference to the late rule `late`.
    `difference_to_cfn_sr` is to CFN-SR with the same encoders, None where there is none; `comparisons` are
    those that were asked for, of `a` less `b`, with a `reason` and no figures where nothing can be said.
    `ci95` is [None, None] of fewer than eight actors. `calibration` has "tempered" figures, and
    `abstention` entries, only where the protocol leaves validation clips; `confusion` counts clips by acted
    (rows) and predicted emotion (columns), averaged over seeds. `last_epoch_test_accuracy` is None where no
    epoch was tested; `validation_accuracy`, over the inner validation clips, None without any. `corpora` has
    the figures on each of several corpora, and nothing of one.
    """
    return {
        "version": VERSION,
        "rows": [_row(row) for row in rows],
        "tables": [
            {
                "name": group.name,
                "encoders": _encoders(group.pair),
                "lines": [{"title": title, "model": model} for title, model in group.lines],
            }
            for group in layout(rows)
        ],
        "comparisons": [_comparison(each) for each in compared],
        "unfinished": [{"folder": run.folder.as_posix(), "reason": run.reason} for run in unfinished],
    }


def _row(row: Row) -> dict[str, Any]:
    run = row.runs[0]
    return {
        "model": row.model,
        "encoders": _encoders(row.encoders),
        "fusion": row.fusion,
        "protocol": row.protocol,
        "optimistic": run.optimistic,
        "caveat": row.caveat,
        "seeds": list(row.seeds),
        "params": run.params,
        "trained_params": run.trained_params,
        **{name: _estimate(each) for name, each in row.estimates.items()},
        "corpora": {
            corpus: {name: _estimate(each) for name, each in figures.items()}
            for corpus, figures in row.corpora.items()
        },
        "difference_to_cfn_sr": _difference(row.versus),
        "validation_accuracy": row.validation_accuracy,
        "folds": [_fold(*each) for each in zip(row.runs, row.fold_figures, strict=True)],
        "paper": row.paper and row.paper._asdict(),
        "comparable": not row.incomparable,
        "complete": row.complete,
        "preset": run.preset,
        "corpus": run.corpus,
        "calibration": _calibration(row.calibration, row.runs),
        "abstention": [{"wanted": each.wanted, **_answered(each)} for each in row.calibration.abstention],
        "conditions": {name: _estimate(each) for name, each in row.conditions.items()},
        "interaction": _interaction(row.interaction),
        "emotions": list(row.emotions),
        "confusion": row.tally.actors.pooled().confusion.tolist(),
        "actors": {str(actor): share for actor, share in row.accuracy_of.items()},
    }


def _fold(run: Run, figures: Mapping[str, float]) -> dict[str, Any]:
    return {
        "fold": run.fold,
        "seed": run.seed,
        **figures,
        "test_actors": list(run.test_actors),
        "epoch": run.epoch,
        "seconds": run.seconds,
        "last_epoch_test_accuracy": run.history[-1].get("test_accuracy"),
    }


def _interaction(found: Interaction | None) -> dict[str, Any] | None:
    if found is None:
        return None
    return {
        **{name: asdict(effect) for name, effect in found.effects.items()},
        "entropy": found.entropy,
        "inert": found.inert,
        "late": found.late or None,
        "beyond_late": _difference(found.beyond),
        "reason": found.beyond if isinstance(found.beyond, str) else None,
    }


def _encoders(encoders: Encoders) -> dict[str, str | None]:
    return {modality: name or None for modality, name in encoders._asdict().items()}


def _estimate(found: Estimate) -> dict[str, Any]:
    return {"mean": found.mean, "std": found.std, "ci95": list(found.ci95 or (None, None))}


def _difference(versus: Difference | str) -> dict[str, Any] | None:
    return None if isinstance(versus, str) else {**asdict(versus), "ci95": list(versus.ci95)}


def _comparison(each: Comparison) -> dict[str, Any]:
    nothing = dict.fromkeys(field.name for field in fields(Difference))
    return {
        "a": each.a,
        "b": each.b,
        "protocol": each.protocol,
        **(_difference(each.found) or nothing),
        "reason": each.found if isinstance(each.found, str) else None,
    }


def _calibration(found: Calibration, runs: Sequence[Run]) -> dict[str, Any]:
    scores = {"ece": found.ece, "nll": found.nll, "brier": found.brier}
    return {
        **{name: {kind: _estimate(each) for kind, each in score.items()} for name, score in scores.items()},
        "temperatures": [
            {"fold": run.fold, "seed": run.seed, "temperature": temperature}
            for run, temperature in zip(runs, found.temperatures, strict=False)
        ],
        "reason": found.reason or None,
        "curve": [{"threshold": each.threshold, **_answered(each)} for each in found.curve],
    }


def _answered(each: Answered) -> dict[str, Any]:
    figures = {
        "coverage": (each.coverage, each.coverage_ci95),
        "accuracy": (each.accuracy, each.accuracy_ci95),
    }
    return {name: {"mean": mean, "ci95": list(ci or (None, None))} for name, (mean, ci) in figures.items()}
