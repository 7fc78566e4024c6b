"""`report.html`: one page that needs nothing beside itself."""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup

from cfnsr.data.folds import OPTIMISTIC
from cfnsr.evaluation import calibration, plots
from cfnsr.evaluation.calibration import Answered
from cfnsr.evaluation.comparison import Comparison
from cfnsr.evaluation.interaction import DISTURBANCES
from cfnsr.evaluation.layout import layout, reasons
from cfnsr.evaluation.metrics import Floats
from cfnsr.evaluation.names import called
from cfnsr.evaluation.robustness import MEANINGS, conditions_of
from cfnsr.evaluation.robustness import label as condition_label
from cfnsr.evaluation.runs import Unfinished
from cfnsr.evaluation.spread import Spread
from cfnsr.evaluation.summary import Row, remarks
from cfnsr.evaluation.tables import (
    HOW_ACCURACY,
    HOW_CALIBRATION,
    HOW_COMPARISONS,
    HOW_DIFFERENCE,
    HOW_INTERACTION,
    HOW_PAIRS,
    HOW_TEST,
    beyond_late,
    effect,
    equivalence,
    in_column,
    limits,
    mean_and_deviation,
    millions,
    ours,
    p_value,
    pair,
    percent,
    published,
    verdict,
)

HANDFUL = 0.01  # of the clips: the accuracy of fewer is no point of a curve
OPEN = 4  # rows whose details stand open; with more the page would be too long to read


@dataclass(frozen=True)
class Example:
    """A test clip whose answer is explained.

    Args:
        caption: which clip, and how it was answered.
        picture: a PNG of what the answer rests on.
    """

    caption: str
    picture: bytes

    @property
    def address(self) -> str:
        """The picture within the page."""
        return f"data:image/png;base64,{b64encode(self.picture).decode()}"


Examples = Mapping[tuple[str, str], Sequence[Example]]


def html(
    rows: Sequence[Row],
    unfinished: Sequence[Unfinished] = (),
    examples: Examples | None = None,
    compared: Sequence[Comparison] = (),
) -> str:
    """The page of some rows; `examples` has explained clips of some of them, by model and protocol."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("cfnsr.evaluation"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "published": published,
        "percent": percent,
        "pair": pair,
        "p_value": p_value,
        "equivalence": equivalence,
        "mean_and_deviation": mean_and_deviation,
        "limits": limits,
        "millions": millions,
        "duration": duration,
        "in_column": in_column,
        "words": condition_label,
        "broken": _broken,
        "called": called,
        "effect": effect,
        "beyond_late": beyond_late,
        "verdict": verdict,
    }
    anchors = {(row.model, row.protocol): f"row-{number}" for number, row in enumerate(rows, start=1)}
    environment.globals |= {
        "optimistic": OPTIMISTIC,
        "coverages": calibration.COVERAGES,
        "how": {
            "accuracy": HOW_ACCURACY,
            "difference": HOW_DIFFERENCE,
            "pairs": HOW_PAIRS,
            "comparisons": HOW_COMPARISONS,
            "interaction": HOW_INTERACTION,
            "test": HOW_TEST,
            "calibration": HOW_CALIBRATION,
            "conditions": MEANINGS,
        },
        "anchor": lambda row: anchors[row.model, row.protocol],
        "reasons": reasons,
        "ours": ours,
        "disturbances": DISTURBANCES,
        "curves": _curves,
        "epoch_of": _epoch,
        "actor_bars": _actor_bars,
        "emotion_bars": _emotion_bars,
        "reliability": _reliability,
        "abstention": _abstention,
        "confusion": _confusion,
        "settings": _settings,
        "versions_of": _versions,
    }
    return environment.get_template("report.html").render(
        rows=rows,
        tables=layout(rows),
        compared=compared,
        under_conditions=_under_conditions(rows),
        unfinished=unfinished,
        remarks=remarks(rows),
        open=len(rows) <= OPEN,
        examples=examples or {},
    )


def _broken(name: str) -> Markup:
    """A name that may be broken into lines where a person would."""
    return Markup("+<wbr>").join(Markup("_<wbr>").join(part.split("_")) for part in name.split("+"))


def duration(seconds: float) -> str:
    """A span of time as a person would say it.

    >>> duration(12.3), duration(754), duration(3 * 3600 + 120)
    ('12 s', '12 min 34 s', '3 h 2 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


@dataclass(frozen=True)
class UnderConditions:
    """The rows of one protocol that were scored under bad input.

    Args:
        label: the protocol, with its caveat.
        names: of the conditions, clean first.
        panels: a plot for each of them, over all rows.
    """

    label: str
    rows: Sequence[Row]
    names: Sequence[str]
    panels: Sequence[Markup]


def _under_conditions(rows: Sequence[Row]) -> list[UnderConditions]:
    made = []
    for label in dict.fromkeys(row.protocol_label for row in rows if row.conditions):
        scored = [row for row in rows if row.protocol_label == label and row.conditions]
        names = conditions_of([row.conditions for row in scored])
        panels = [_panel(name, scored) for name in names]
        made.append(UnderConditions(label, scored, names, panels))
    return made


def _panel(condition: str, rows: Sequence[Row]) -> Markup:
    unknown = Spread(np.nan, None, None)  # the row keeps its line, so that the panels can be read across
    under = [row.conditions.get(condition, unknown) for row in rows]
    means = ", ".join(f"{row.model} {percent(each.mean)}" for row, each in zip(rows, under, strict=True))
    return plots.condition_dots(
        [row.model for row in rows],
        np.array([each.mean for each in under]),
        np.array([each.ci95 or (np.nan, np.nan) for each in under]).T,
        np.array([row.spreads["accuracy"].mean for row in rows]),
        1 / len(rows[0].emotions),
        f"Accuracy in per cent, {condition_label(condition)}, {rows[0].protocol_label}: {means}",
    )


def _curves(row: Row) -> Markup:
    split = "validation" if "validation_accuracy" in row.runs[0].history[-1] else "test"
    chosen = [run.epoch for run in row.runs]
    alt = f"Learning curves of {row.name}; {split} (dashed: train); {_epoch(row)}"
    mark = "last epoch" if _keeps_the_last(row) else "chosen epoch"
    drawn = plots.learning_curves([run.history for run in row.runs], chosen, split, alt, mark=mark)
    why = _harder_training(row)
    if not why:
        return drawn
    told = f"The training loss is of {why}, with dropout, and so cannot be compared with the {split} loss."
    return drawn + Markup('<p class="note">{}</p>').format(told)


def _keeps_the_last(row: Row) -> bool:
    """Whether its weights are those of the last epoch, so that nobody chose one."""
    return all(run.settings.get("keep") == "last" for run in row.runs)


def _epoch(row: Row) -> str:
    """How the epoch of a row's runs was found."""
    if _keeps_the_last(row):
        return "the last epoch kept"
    return f"epoch chosen on: {row.runs[0].selected_on}"


def _harder_training(row: Row) -> str:
    """What is trained on that is not what is scored; empty where they are alike."""
    words = {"mixup": "mixed clips", "label_smoothing": "smoothed labels"}
    return " and ".join(
        word for name, word in words.items() if any(run.settings.get(name) for run in row.runs)
    )


def _actor_bars(row: Row) -> Markup:
    accuracies = row.actor_accuracy
    low, high = int(accuracies.argmin()), int(accuracies.argmax())
    alt = (
        f"Accuracy of each test actor of {row.name}: from {percent(accuracies[low])} % "
        f"(actor {row.actors[low]}) to {percent(accuracies[high])} % (actor {row.actors[high]})"
    )
    return plots.actor_bars(
        [str(actor) for actor in row.actors], accuracies, row.spreads["accuracy"].mean, alt
    )


def _emotion_bars(row: Row) -> Markup:
    accuracies = row.emotion_accuracy
    said = ", ".join(
        f"{name} {percent(value)} %" for name, value in zip(row.emotions, accuracies, strict=True)
    )
    alt = f"Accuracy of each emotion of {row.name}: {said}"
    mean = row.spreads["accuracy"].mean
    return plots.emotion_bars(row.emotions, accuracies, row.emotion_interval, mean, alt)


def _reliability(row: Row) -> Markup:
    found = row.calibration
    drawn = [
        calibration.reliability(tally.actors.pooled().bins)
        for tally in (found.raw, found.tempered)
        if tally is not None
    ]
    errors = ", ".join(f"{percent(spread.mean)} % {name}" for name, spread in found.ece.items())
    alt = f"Reliability diagram of {row.name}; expected calibration error {errors}"
    return plots.reliability(drawn[0], drawn[1] if len(drawn) > 1 else None, alt)


def _abstention(row: Row) -> Markup:
    curve, chosen = row.calibration.curve, row.calibration.abstention
    said = ", ".join(f"{percent(each.accuracy)} % of {percent(each.coverage)} %" for each in chosen or curve)
    accuracies = np.where([each.coverage < HANDFUL for each in curve], np.nan, _accuracies(curve))
    return plots.abstention(
        calibration.THRESHOLDS,
        np.array([each.coverage for each in curve]),
        accuracies,
        np.array([each.accuracy_ci95 or (np.nan, np.nan) for each in curve]).T,
        np.stack([[each.coverage for each in chosen], _accuracies(chosen)], axis=1),
        f"Accuracy of the answered clips of {row.name} against their share: {said}",
    )


def _accuracies(answered: Sequence[Answered]) -> Floats:
    return np.array([np.nan if each.accuracy is None else each.accuracy for each in answered])


def _confusion(row: Row) -> list[tuple[str, float, list[tuple[float, float]]]]:
    """The confusion matrix line by line: emotion, its clips, and (share, clips) of each answer."""
    clips = row.counts.pooled().confusion
    totals = clips.sum(axis=1)
    return [
        (name, total, [(float(cell / total) if total else 0.0, float(cell)) for cell in line])
        for name, total, line in zip(row.emotions, totals.tolist(), clips, strict=True)
    ]


def _settings(row: Row) -> dict[str, str]:
    """The settings of a row; one that differs between its runs shows all its values."""
    run = row.runs[0]
    about = {
        "preset": run.preset,
        "corpus": f"{run.corpus}, {run.clips} clips",
        "parameters": f"{run.params:,}"
        + (f", {run.trained_params:,} of them trained" if run.trained_params < run.params else ""),
    }
    return about | _together([run.settings for run in row.runs])


def _versions(rows: Sequence[Row]) -> dict[str, str]:
    return _together([run.versions for row in rows for run in row.runs])


def _together(tables: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    names = dict.fromkeys(name for table in tables for name in table)
    return {name: " | ".join(dict.fromkeys(str(table.get(name, "–")) for table in tables)) for name in names}
