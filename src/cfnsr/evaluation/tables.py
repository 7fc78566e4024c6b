"""The report's tables as Markdown: the paper's figures beside ours."""

import html
from collections.abc import Iterable, Sequence

from cfnsr.evaluation.runs import Unfinished
from cfnsr.evaluation.summary import OPTIMISTIC, Row, Spread, remarks

NOTHING = "–"


def percent(value: float | None, signed: bool = False) -> str:
    """A fraction in per cent with one decimal, without the sign for per cent.

    >>> percent(0.7576), percent(0.0123, signed=True), percent(None)
    ('75.8', '+1.2', '–')
    """
    if value is None or value != value:
        return NOTHING
    text = f"{100 * value:{'+' if signed else ''}.1f}"
    return text.replace("-", "−")


def mean_and_deviation(spread: Spread) -> str:
    """Mean and deviation over folds, in per cent.

    >>> mean_and_deviation(Spread(0.5, 0.025, None)), mean_and_deviation(Spread(0.5, None, None))
    ('50.0 ± 2.5', '50.0')
    """
    return percent(spread.mean) + ("" if spread.std is None else f" ± {percent(spread.std)}")


def limits(spread: Spread) -> str:
    """The 95 % interval, in per cent.

    >>> limits(Spread(0.5, None, (0.45, 0.561)))
    '45.0 to 56.1'
    """
    return NOTHING if spread.ci95 is None else f"{percent(spread.ci95[0])} to {percent(spread.ci95[1])}"


def millions(params: float | None) -> str:
    """Parameters in millions, from millions: two decimals as in the paper, more for a tiny model.

    >>> millions(26.301417), millions(0.0034), millions(None)
    ('26.30', '0.0034', '–')
    """
    if params is None:
        return NOTHING
    return f"{params:.2f}" if params >= 0.01 else f"{params:.2g}"


def protocol_label(protocol: str, optimistic: bool) -> str:
    """A protocol's name, with the warning where its figures are optimistic.

    >>> protocol_label("paper", True)
    'paper protocol (optimistic: best epoch on test)'
    """
    return f"{protocol} protocol" + (f" ({OPTIMISTIC})" if optimistic else "")


def tables(rows: Sequence[Row], unfinished: Sequence[Unfinished]) -> str:
    """`tables.md`: a table of accuracy against the paper, one of the other figures, and the remarks."""
    parts = [
        "# Results",
        *[f"> {_safe(remark)}" for remark in remarks(rows)],
        "## Accuracy beside the paper's",
    ]
    parts += [_accuracy_table(rows), _explanation(), "## Other figures", _figures_table(rows)]
    if unfinished:
        parts.append("## Unfinished runs, not counted")
        parts.append("\n".join(f"- {_safe(str(run.folder))}: {_safe(run.reason)}" for run in unfinished))
    return "\n\n".join(parts) + "\n"


def _accuracy_table(rows: Sequence[Row]) -> str:
    """One line a model, with three columns for each protocol that was run."""
    protocols = {protocol_label(row.protocol, row.optimistic): None for row in rows}
    head = ["model", "fusion", f"paper: accuracy % ({OPTIMISTIC})"]
    for protocol in protocols:
        head += [
            f"{protocol}: accuracy %",
            f"{protocol}: 95 % interval",
            f"{protocol}: ours − paper's",
        ]
    head += ["paper: params M", "ours: params M"]

    lines = []
    for model in dict.fromkeys(row.model for row in rows):
        of_model = {protocol_label(row.protocol, row.optimistic): row for row in rows if row.model == model}
        first = next(iter(of_model.values()))
        line = [model, first.fusion or NOTHING, percent(first.paper.accuracy if first.paper else None)]
        for protocol in protocols:
            if protocol in of_model:
                row = of_model[protocol]
                spread = row.spreads["accuracy"]
                missing = "" if row.complete else f" ({row.progress})"
                line += [
                    mean_and_deviation(spread) + missing,
                    limits(spread),
                    percent(row.difference, signed=True),
                ]
            else:
                line += [NOTHING] * 3
        ours = dict.fromkeys(millions(row.runs[0].params / 1e6) for row in of_model.values())
        lines.append([*line, millions(first.paper.params if first.paper else None), " / ".join(ours)])
    return _table(head, lines, texts=2)


def _figures_table(rows: Sequence[Row]) -> str:
    head = ["model", "protocol", "accuracy %", "UAR %", "macro F1 %", "ECE %", "folds", "preset", "corpus"]
    lines = [
        [
            row.model,
            protocol_label(row.protocol, row.optimistic),
            *[mean_and_deviation(row.spreads[name]) for name in ("accuracy", "uar", "macro_f1", "ece")],
            row.progress,
            row.runs[0].preset,
            row.runs[0].corpus,
        ]
        for row in rows
    ]
    return _table(head, lines, texts=2)


def _explanation() -> str:
    return (
        "Accuracy is the mean ± deviation over folds (n − 1; of several seeds each fold's mean first). "
        "The 95 % interval resamples whole actors (10,000 times). "
        "A difference is given where preset and corpus are the paper's."
    )


def _table(head: Sequence[str], lines: Iterable[Sequence[str]], texts: int) -> str:
    """A Markdown table whose first `texts` columns are text and whose others are aligned as numbers."""
    rule = ["---" if column < texts else "---:" for column in range(len(head))]
    rows = [head, rule, *([_safe(cell) for cell in line] for line in lines)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _safe(text: str) -> str:
    """Text that cannot end a cell or begin a tag: names come from files."""
    return html.escape(" ".join(text.split()), quote=False).replace("|", "\\|")
