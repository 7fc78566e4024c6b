"""The report of a folder of runs: `report.html`, `tables.md` and `results.json`."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from cfnsr.errors import InputError
from cfnsr.evaluation.comparison import MARGIN, Comparison, comparisons
from cfnsr.evaluation.html import Examples, html
from cfnsr.evaluation.paper_tables import tables
from cfnsr.evaluation.results import results
from cfnsr.evaluation.rows import Row, summarise
from cfnsr.evaluation.runs import read_runs, unfinished_runs
from cfnsr.files import write_json, write_text


class Written(NamedTuple):
    """The files of a report, the rows it is of, and the comparisons that were asked for."""

    html: Path
    tables: Path
    results: Path
    rows: tuple[Row, ...]
    compared: tuple[Comparison, ...] = ()


def report(
    runs_folder: Path | str,
    out: Path | str | None = None,
    *,
    compare: Sequence[tuple[str, str]] = (),
    margin: float = MARGIN,
    explained: Callable[[Sequence[Row]], Examples] = lambda rows: {},
) -> Written:
    """Summarise all finished runs below a folder.

    Args:
        runs_folder: what `cfnsr crossval --out` filled.
        out: where the three files go; the runs' own folder by default.
        compare: pairs of models, each compared under every protocol that both were run under.
        margin: the largest difference of accuracy, as a fraction, that would not matter.
        explained: makes the test clips that the page explains.

    Raises:
        InputError: no finished run, runs that are broken, leak, or do not belong together, or a model to
            compare that was not run.
    """
    if not 0 < margin < 1:
        raise InputError(f"a margin of {100 * margin:g} points: expected more than 0 and less than 100")
    rows = summarise(read_runs(runs_folder), margin)
    compared = comparisons(rows, compare, margin)
    unfinished = unfinished_runs(runs_folder)
    # Everything is computed before the first file is replaced.
    content, text = results(rows, unfinished, compared), tables(rows, unfinished, compared)
    page = html(rows, unfinished, explained(rows), compared)
    folder = Path(runs_folder if out is None else out)
    files = folder / "report.html", folder / "tables.md", folder / "results.json"
    written = Written(*files, tuple(rows), tuple(compared))
    write_json(written.results, content)
    write_text(written.tables, text)
    write_text(written.html, page)
    return written
