"""`report.html`: one page that needs nothing beside itself."""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from markupsafe import Markup

from cfnsr.data.folds import OPTIMISTIC
from cfnsr.evaluation import calibration, plots
from cfnsr.evaluation.calibration import Answered
from cfnsr.evaluation.comparison import Comparison
from cfnsr.evaluation.metrics import FIGURES, Floats, interval, recalls
from cfnsr.evaluation.notes import remarks
from cfnsr.evaluation.predictions import conditions_of
from cfnsr.evaluation.predictions import label as condition_label
from cfnsr.evaluation.runs import Unfinished
from cfnsr.evaluation.sections import conditions_table, confusion_table, sections
from cfnsr.evaluation.spread import Spread
from cfnsr.evaluation.summary import Row
from cfnsr.evaluation.tables import (
    Cell,
    Line,
    Table,
    limits,
    mean_and_deviation,
    millions,
    pair,
    percent,
    published,
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
        "percent": percent,
        "mean_and_deviation": mean_and_deviation,
        "limits": limits,
        "broken": _broken,
    }
    environment.globals["anchors"] = {row.name: f"row-{number}" for number, row in enumerate(rows, start=1)}
    tables = sections(rows, compared)
    return environment.get_template("report.html").render(
        rows=rows,
        tables=tables | {"summary": _with_pictures(tables["summary"], rows)},
        under_conditions=_under_conditions(rows),
        unfinished=unfinished,
        remarks=remarks(rows),
        versions=_together([run.versions for row in rows for run in row.runs]),
        open=len(rows) <= OPEN,
        examples=examples or {},
        optimistic=OPTIMISTIC,
        details=_details,
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


def _with_pictures(table: Table, rows: Sequence[Row]) -> Table:
    """All rows with a picture of their accuracy beside the paper's, in place of their preset and corpus."""
    lines: list[Line] = []
    for row, line in zip(rows, table.rows, strict=True):
        kept = {head: cell for head, cell in line.items() if head not in ("preset", "corpus")}
        size, paper, why = row.runs[0].params / 1e6, row.paper, row.incomparable
        said = Cell("–") if paper is None else Cell(published(paper.accuracy))
        if paper is not None and why:
            said = replace(said, caveats=("not comparable",), hint=why)
        params = f"{millions(size)} (paper {millions(paper.params)})" if paper else millions(size)
        lines.append(
            {**kept, "params M": params, f"paper: accuracy % ({OPTIMISTIC})": said, "picture": _picture(row)}
        )
    return replace(table, title="All rows", rows=lines)


def _picture(row: Row) -> Markup:
    """Accuracy, interval, chance and the paper's figure on a line from 0 to 100 %."""
    accuracy, chance = row.spreads["accuracy"], 100 / len(row.emotions)
    drawn = ['<line class="axis" x1="0" x2="100" y1="5" y2="5"/>']
    drawn.append(f'<line class="chance" x1="{chance}" x2="{chance}" y1="0" y2="10"/>')
    if accuracy.ci95:
        low, high = accuracy.ci95
        drawn.append(f'<line class="bar" x1="{100 * low:.2f}" x2="{100 * high:.2f}" y1="5" y2="5"/>')
    if row.paper and not row.incomparable:
        left = 100 * row.paper.accuracy - 2
        drawn.append(f'<rect class="paper" x="{left:.2f}" y="3" width="4" height="4"/>')
    drawn.append(f'<circle class="dot" cx="{100 * accuracy.mean:.2f}" cy="5" r="3"/>')
    return Markup(f'<svg class="line" viewBox="0 0 100 10" aria-hidden="true">{"".join(drawn)}</svg>')  # noqa: S704 - numbers alone


@dataclass(frozen=True)
class UnderConditions:
    """The rows of one protocol that were scored under bad input.

    Args:
        label: the protocol, with its caveat.
        caveat: of the protocol.
        panels: a plot of all rows for each condition, clean first.
        table: the same as figures.
    """

    label: str
    caveat: str
    panels: Mapping[str, Markup]
    table: Table


def _under_conditions(rows: Sequence[Row]) -> list[UnderConditions]:
    made = []
    for label in dict.fromkeys(row.protocol_label for row in rows if row.conditions):
        scored = [row for row in rows if row.protocol_label == label and row.conditions]
        names = conditions_of(row.conditions for row in scored)
        table = conditions_table(
            ({"model": Cell(row.model, link=row.name)}, row.conditions) for row in scored
        )
        panels = {condition_label(name): _panel(name, scored) for name in names}
        made.append(UnderConditions(label, scored[0].caveat, panels, table))
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


def _details(row: Row) -> dict[str, Any]:
    """The plots and tables of a row's own section."""
    return {
        "curves": _curves(row),
        "training_loss": _harder_training(row),
        "epoch": _epoch(row),
        "confusion": confusion_table(row.emotions, row.tally.actors.pooled().confusion.tolist()),
        "actors": _actor_bars(row),
        "emotions": _emotion_bars(row),
        "reliability": _reliability(row),
        "abstention": _abstention(row),
        "thresholds": Table("", [_threshold(each) for each in row.calibration.abstention], texts=0),
        "folds": _folds(row),
        "settings": _settings(row),
    }


def _threshold(each: Answered) -> Line:
    return {
        "wanted": f"{100 * (each.wanted or 0):.0f}",
        "answered": Cell(percent(each.coverage), interval=pair(each.coverage_ci95)),
        "of these right": Cell(percent(each.accuracy), interval=pair(each.accuracy_ci95)),
    }


def _folds(row: Row) -> Table:
    titles = {"accuracy": "accuracy", "uar": "UAR", "macro_f1": "macro F1", "ece": "ECE"}
    lines: list[Line] = [
        {
            "fold": str(run.fold),
            "seed": str(run.seed),
            **{titles[name]: percent(figures[name]) for name in FIGURES},
            "epoch": f"{run.epoch} of {run.epochs}",
            "test actors": " ".join(map(str, run.test_actors)),
            "validation actors": " ".join(map(str, run.validation_actors)) or "none",
            "test clips": str(len(run.test.clips)),
            "time": duration(run.seconds),
        }
        for run, figures in zip(row.runs, row.fold_figures, strict=True)
    ]
    return Table("", lines, texts=2)


def _settings(row: Row) -> Table:
    """The settings of a row; one that differs between its runs shows all its values."""
    run = row.runs[0]
    trained = f", {run.trained_params:,} of them trained" if run.trained_params < run.params else ""
    said = {
        "preset": run.preset,
        "corpus": f"{run.corpus}, {run.clips} clips",
        "parameters": f"{run.params:,}{trained}",
        **_together([run.settings for run in row.runs]),
        **{
            f"version of {name}": each for name, each in _together([run.versions for run in row.runs]).items()
        },
    }
    return Table("", [{"setting": name, "value": value} for name, value in said.items()], texts=2)


def _together(tables: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    names = dict.fromkeys(name for table in tables for name in table)
    return {name: " | ".join(dict.fromkeys(str(table.get(name, "–")) for table in tables)) for name in names}


def _curves(row: Row) -> Markup:
    split = "validation" if "validation_accuracy" in row.runs[0].history[-1] else "test"
    chosen = [run.epoch for run in row.runs]
    alt = f"Learning curves of {row.name}; {split} (dashed: train); {_epoch(row)}"
    mark = "last epoch" if all(run.keeps_last for run in row.runs) else "chosen epoch"
    return plots.learning_curves([run.history for run in row.runs], chosen, split, alt, mark=mark)


def _epoch(row: Row) -> str:
    """How the epoch of a row's runs was found."""
    if all(run.keeps_last for run in row.runs):
        return "the last epoch kept"
    return f"epoch chosen on: {row.runs[0].selected_on}"


def _harder_training(row: Row) -> str:
    """What is trained on that is not what is scored; empty where they are alike."""
    words = {"mixup": "mixed clips", "label_smoothing": "smoothed labels"}
    return " and ".join(
        word for name, word in words.items() if any(run.settings.get(name) for run in row.runs)
    )


def _actor_bars(row: Row) -> Markup:
    names, accuracies = list(map(str, row.accuracy_of)), np.array([*row.accuracy_of.values()])
    low, high = int(accuracies.argmin()), int(accuracies.argmax())
    alt = (
        f"Accuracy of each test actor of {row.name}: from {percent(accuracies[low])} % "
        f"(actor {names[low]}) to {percent(accuracies[high])} % (actor {names[high]})"
    )
    return plots.actor_bars(names, accuracies, row.spreads["accuracy"].mean, alt)


def _emotion_bars(row: Row) -> Markup:
    counts = row.tally.actors
    accuracies = recalls(counts.pooled())
    said = ", ".join(
        f"{name} {percent(value)} %" for name, value in zip(row.emotions, accuracies, strict=True)
    )
    alt = f"Accuracy of each emotion of {row.name}: {said}"
    mean = row.spreads["accuracy"].mean
    return plots.emotion_bars(row.emotions, accuracies, interval(recalls, counts), mean, alt)


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
