"""The report of a folder of runs: `report.html`, `tables.md` and `results.json`."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from cfnsr.evaluation.page import Examples, html
from cfnsr.evaluation.results import results
from cfnsr.evaluation.runs import read_runs, unfinished_runs
from cfnsr.evaluation.summary import Row, summarise
from cfnsr.evaluation.tables import tables
from cfnsr.files import write_json, write_text


class Written(NamedTuple):
    """The files of a report, and the rows it is of."""

    html: Path
    tables: Path
    results: Path
    rows: tuple[Row, ...]


def report(
    runs_folder: Path | str,
    out: Path | str | None = None,
    *,
    explained: Callable[[Sequence[Row]], Examples] = lambda rows: {},
) -> Written:
    """Summarise all finished runs below a folder.

    Args:
        runs_folder: what `cfnsr crossval --out` filled.
        out: where the three files go; the runs' own folder by default.
        explained: makes the test clips that the page explains.

    Raises:
        InputError: no finished run, or runs that are broken, leak, or do not belong together.
    """
    rows = summarise(read_runs(runs_folder))
    unfinished = unfinished_runs(runs_folder)
    folder = Path(runs_folder if out is None else out)
    written = Written(folder / "report.html", folder / "tables.md", folder / "results.json", tuple(rows))
    # Everything is computed before the first file is replaced.
    content, text = results(rows, unfinished), tables(rows, unfinished)
    page = html(rows, unfinished, explained(rows))
    write_json(written.results, content)
    write_text(written.tables, text)
    write_text(written.html, page)
    return written
