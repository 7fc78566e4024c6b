"""The report of a folder of runs: `report.html`, `tables.md` and `results.json`."""

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from markupsafe import Markup

from cfnsr.evaluation import plots
from cfnsr.evaluation.runs import Unfinished, read_runs, unfinished_runs
from cfnsr.evaluation.summary import OPTIMISTIC, Row, Spread, remarks, summarise
from cfnsr.evaluation.tables import limits, mean_and_deviation, millions, percent, protocol_label, tables
from cfnsr.files import write_json, write_text

VERSION = 1  # of the form of results.json


class Written(NamedTuple):
    """The files of a report."""

    html: Path
    tables: Path
    results: Path


def report(runs_folder: Path | str, out: Path | str | None = None) -> Written:
    """Summarise all finished runs below a folder.

    Args:
        runs_folder: what `cfnsr crossval --out` filled.
        out: where the three files go; the runs' own folder by default.

    Raises:
        InputError: no finished run, or runs that are broken, leak, or do not belong together.
    """
    rows = summarise(read_runs(runs_folder))
    unfinished = unfinished_runs(runs_folder)
    folder = Path(runs_folder if out is None else out)
    written = Written(folder / "report.html", folder / "tables.md", folder / "results.json")
    page = html(rows, unfinished)  # everything is computed before the first file is replaced
    write_json(written.results, results(rows, unfinished))
    write_text(written.tables, tables(rows, unfinished))
    write_text(written.html, page)
    return written


def results(rows: Sequence[Row], unfinished: Sequence[Unfinished] = ()) -> dict[str, Any]:
    """`results.json`: all figures as fractions, one row a model and protocol."""
    return {
        "version": VERSION,
        "rows": [_result(row) for row in rows],
        "unfinished": [{"folder": run.folder.as_posix(), "reason": run.reason} for run in unfinished],
    }


def html(rows: Sequence[Row], unfinished: Sequence[Unfinished] = ()) -> str:
    """`report.html`: one page that needs nothing beside itself."""
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
        "millions": millions,
        "duration": duration,
    }
    environment.globals |= {
        "optimistic": OPTIMISTIC,
        "protocol_label": protocol_label,
        "curves": _curves,
        "actor_bars": _actor_bars,
        "emotion_bars": _emotion_bars,
        "confusion": _confusion,
        "settings": _settings,
        "versions_of": _versions,
    }
    return environment.get_template("report.html").render(
        rows=rows, unfinished=unfinished, remarks=remarks(rows)
    )


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


def _result(row: Row) -> dict[str, Any]:
    paper = None if row.paper is None else {"accuracy": row.paper.accuracy, "params": row.paper.params}
    return {
        "model": row.model,
        "protocol": row.protocol,
        "optimistic": row.optimistic,
        "seeds": list(row.seeds),
        "params": row.runs[0].params,
        **{name: _spread(spread) for name, spread in row.spreads.items()},
        "folds": [
            {
                "fold": run.fold,
                "seed": run.seed,
                **figures,
                "test_actors": list(run.test_actors),
                "epoch": run.epoch,
            }
            for run, figures in zip(row.runs, row.fold_figures, strict=True)
        ],
        "paper": paper,
        "comparable": row.incomparable is None,
        "complete": row.complete,
        "preset": row.runs[0].preset,
        "corpus": row.runs[0].corpus,
    }


def _spread(spread: Spread) -> dict[str, Any]:
    return {"mean": spread.mean, "std": spread.std, "ci95": list(spread.ci95 or (None, None))}


def _curves(row: Row) -> list[tuple[str, Markup]]:
    """Each phase of training with its learning curves; the last phase is the one that is evaluated."""
    split = "validation" if "validation_accuracy" in row.runs[0].history[-1] else "test"
    phases: dict[str, list[list[Any]]] = {}
    for run in row.runs:
        for name, epochs in groupby(run.history, key=lambda epoch: str(epoch.get("phase", ""))):
            phases.setdefault(name, []).append(list(epochs))
    last = str(row.runs[0].history[-1].get("phase", ""))
    drawn = []
    for name, histories in phases.items():
        chosen = [run.epoch for run in row.runs] if name == last else []
        title = f"Learning curves: {name}" if len(phases) > 1 else "Learning curves"
        shown = f"{split} (dashed: train)" + (f", {OPTIMISTIC}" if row.optimistic else "")
        drawn.append(
            (title, plots.learning_curves(histories, chosen, split, f"{title} of {row.name}; {shown}"))
        )
    return drawn


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
        "parameters": f"{run.params:,}",
    }
    return about | _together([run.settings for run in row.runs])


def _versions(rows: Sequence[Row]) -> dict[str, str]:
    return _together([run.versions for row in rows for run in row.runs])


def _together(tables: Sequence[Any]) -> dict[str, str]:
    names = dict.fromkeys(name for table in tables for name in table)
    return {name: " | ".join(dict.fromkeys(str(table.get(name, "–")) for table in tables)) for name in names}
