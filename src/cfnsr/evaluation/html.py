"""`report.html`: one page that needs nothing beside itself."""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from markupsafe import Markup

from cfnsr.data.conditions import in_order, label
from cfnsr.data.folds import OPTIMISTIC
from cfnsr.evaluation import plots
from cfnsr.evaluation.comparison import Comparison
from cfnsr.evaluation.notes import remarks
from cfnsr.evaluation.paper_tables import conditions_table, confusion_table, sections
from cfnsr.evaluation.render import (
    NOTHING,
    Cell,
    Line,
    Table,
    figure,
    limits,
    millions,
    pair,
    percent,
    published,
    template,
)
from cfnsr.evaluation.rows import Row
from cfnsr.evaluation.runs import Unfinished

OPEN = 4  # rows whose details stand open; with more the page would be too long to read


@dataclass(frozen=True)
class Example:
    """A test clip whose answer is explained."""

    caption: str  #: the clip, and how it was answered
    picture: bytes  #: a PNG of what the answer rests on

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
    """Write the page of some rows; `examples` has explained clips of some of them, by model and protocol."""
    tables = sections(rows, compared)
    return template("report.html", figure=figure, limits=limits, breakable=_breakable).render(
        anchors={row.name: f"row-{number}" for number, row in enumerate(rows, start=1)},
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


def _breakable(name: str) -> Markup:
    """Let a name be broken into lines where a person would."""
    return Markup("+<wbr>").join(Markup("_<wbr>").join(part.split("_")) for part in name.split("+"))


def duration(seconds: float) -> str:
    """Format seconds.

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
    """Put a picture of each row's accuracy beside the paper's in place of preset and corpus."""
    lines: list[Line] = []
    for row, line in zip(rows, table.rows, strict=True):
        size, paper, why = millions(row.runs[0].params / 1e6), row.paper, row.incomparable
        theirs = Cell(published(paper.accuracy if paper else None))
        if paper and why:
            theirs = replace(theirs, caveats=("not comparable",), hint=why)
        shown = {head: cell for head, cell in line.items() if head not in ("preset", "corpus")}
        shown["params M"] = f"{size} (paper {millions(paper.params)})" if paper else size
        shown[f"paper: accuracy % ({OPTIMISTIC})"] = theirs
        lines.append({**shown, "picture": plots.picture(row)})
    return replace(table, title="All rows", rows=lines)


def _under_conditions(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Show the figures of each protocol's rows under bad input, and a plot a condition."""
    made = []
    for protocol in dict.fromkeys(row.protocol_label for row in rows if row.conditions):
        scored = [row for row in rows if row.protocol_label == protocol and row.conditions]
        table = conditions_table(
            [({"model": Cell(row.model, link=row.name)}, row.conditions) for row in scored]
        )
        names = in_order(row.conditions for row in scored)
        panels = {label(name): plots.condition_dots(name, scored) for name in names}
        made.append({"label": protocol, "caveat": scored[0].caveat, "table": table, "panels": panels})
    return made


def _details(row: Row) -> dict[str, Any]:
    """Make the plots and tables of a row's own section."""
    harder = {"mixup": "mixed clips", "label_smoothing": "smoothed labels"}
    thresholds: list[Line] = [
        {
            "wanted": f"{100 * (each.wanted or 0):.0f}",
            "answered": Cell(percent(each.coverage), interval=pair(each.coverage_ci95)),
            "of these right": Cell(percent(each.accuracy), interval=pair(each.accuracy_ci95)),
        }
        for each in row.calibration.abstention
    ]
    return {
        "curves": plots.learning_curves(row),
        "harder": [word for name, word in harder.items() if any(run.settings.get(name) for run in row.runs)],
        "confusion": confusion_table(row.emotions, row.tally.actors.pooled().confusion.tolist()),
        "actors": plots.actor_bars(row),
        "emotions": plots.emotion_bars(row),
        "reliability": plots.reliability(row),
        "abstention": plots.abstention(row),
        "thresholds": Table("", thresholds, texts=0),
        "folds": _folds(row),
        "settings": _settings(row),
    }


def _folds(row: Row) -> Table:
    titles = {"accuracy": "accuracy", "uar": "UAR", "macro_f1": "macro F1", "ece": "ECE"}
    lines: list[Line] = [
        {
            "fold": str(run.fold),
            "seed": str(run.seed),
            "test actors": " ".join(map(str, run.test_actors)),
            "validation actors": " ".join(map(str, run.validation_actors)) or "none",
            **{titles[name]: percent(value) for name, value in figures.items()},
            "epoch": f"{run.epoch} of {run.epochs}",
            "test clips": str(len(run.test.clips)),
            "time": duration(run.seconds),
        }
        for run, figures in zip(row.runs, row.fold_figures, strict=True)
    ]
    return Table("", lines, texts=4)


def _settings(row: Row) -> Table:
    """Show the settings of a row; one that differs between its runs shows all its values."""
    run, versions = row.runs[0], _together([run.versions for run in row.runs])
    trained = f", {run.trained_params:,} of them trained" if run.trained_params < run.params else ""
    values = {
        "preset": run.preset,
        "corpus": f"{run.corpus}, {run.clips} clips",
        "parameters": f"{run.params:,}{trained}",
        **_together([run.settings for run in row.runs]),
        **{f"version of {name}": each for name, each in versions.items()},
    }
    return Table("", [{"setting": name, "value": value} for name, value in values.items()], texts=2)


def _together(tables: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Join the values of each name that differ between some tables."""
    names = dict.fromkeys(name for table in tables for name in table)
    values = {name: dict.fromkeys(str(table.get(name, NOTHING)) for table in tables) for name in names}
    return {name: " | ".join(each) for name, each in values.items()}
