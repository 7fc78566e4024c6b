"""One form of a figure and of a table: built once, written as Markdown here and as HTML by `macros.html`."""

import html
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from cfnsr.evaluation.comparison import Difference
from cfnsr.evaluation.spread import Spread

NOTHING = "–"


@dataclass(frozen=True)
class Cell:
    """A figure as it is shown.

    Args:
        value: the figure itself.
        deviation: over folds; empty where there is none.
        interval: its 95 % interval, which a heat map of the page shows; other tables have a column for it.
        caveats: what must stand beside it; empty ones are left out.
        share: the figure as a fraction, by which a heat map is shaded.
        hint: what the page shows where a mouse rests.
        link: where the page leads from it.
    """

    value: str
    deviation: str = ""
    interval: str = ""
    caveats: tuple[str, ...] = ()
    share: float | None = None
    hint: str = ""
    link: str = ""

    def __str__(self) -> str:
        """The figure in a line of text.

        >>> str(Cell("50.0", deviation="2.5", caveats=("3 of 6 folds", "")))
        '50.0 ± 2.5 (3 of 6 folds)'
        """
        deviation = f" ± {self.deviation}" if self.deviation else ""
        return self.value + deviation + "".join(f" ({caveat})" for caveat in self.caveats if caveat)


Line = Mapping[str, Cell | str]


@dataclass(frozen=True)
class Table:
    """A table of figures.

    Args:
        title: its heading.
        rows: cells by the heads of their columns, the same in every row.
        texts: how many columns, from the first, are text; the others are aligned as numbers.
        notes: what is said below it, a paragraph each.
        how: how its figures are computed, likewise.
    """

    title: str
    rows: Sequence[Line]
    texts: int = 1
    notes: Sequence[str] = ()
    how: Sequence[str] = ()

    @property
    def columns(self) -> list[str]:
        """The heads of the columns."""
        return list(self.rows[0]) if self.rows else []

    def markdown(self) -> str:
        """The table alone.

        >>> print(Table("", [{"model": "audio", "accuracy %": Cell("50.0", "2.5")}]).markdown())
        | model | accuracy % |
        | --- | ---: |
        | audio | 50.0 ± 2.5 |
        """
        rule = ["---" if place < self.texts else "---:" for place in range(len(self.columns))]
        lines = [self.columns, *([str(cell) for cell in row.values()] for row in self.rows)]
        head, *body = [[safe(cell) for cell in line] for line in lines]
        return "\n".join(f"| {' | '.join(line)} |" for line in (head, rule, *body))

    def section(self) -> list[str]:
        """The table with its heading and notes, as paragraphs of Markdown."""
        return [f"## {self.title}", self.markdown(), *map(safe, self.notes), *self.how]


def safe(text: str) -> str:
    """Text that cannot end a cell, nor begin a tag, a link or code: names come from files.

    >>> print(safe("<b> [x](y) | z"))
    &lt;b&gt; \\[x\\](y) \\| z
    """
    return re.sub(r"([\\`\[\]|])", r"\\\1", html.escape(" ".join(text.split()), quote=False))


def percent(value: float | None, signed: bool = False) -> str:
    """A fraction in per cent with one decimal, without the sign for per cent.

    >>> percent(0.7576), percent(0.0123, signed=True), percent(None)
    ('75.8', '+1.2', '–')
    """
    if value is None or value != value:
        return NOTHING
    text = f"{100 * value:{'+' if signed else ''}.1f}"
    return text.replace("-", "−")


def two_decimals(value: float) -> str:
    """A score that is no share.

    >>> two_decimals(0.755)
    '0.76'
    """
    return f"{value:.2f}"


def published(value: float | None) -> str:
    """A figure of the paper in per cent, with the two decimals it has there.

    >>> published(0.7035), published(None)
    ('70.35', '–')
    """
    return NOTHING if value is None else f"{100 * value:.2f}"


def pair(ci95: tuple[float, float] | None, signed: bool = False) -> str:
    """An interval's two limits, in per cent.

    >>> pair((-0.061, 0.02), signed=True), pair(None)
    ('−6.1 to +2.0', '–')
    """
    return NOTHING if ci95 is None else " to ".join(percent(limit, signed) for limit in ci95)


def p_value(p: float) -> str:
    """A p value with three decimals.

    >>> p_value(0.0312), p_value(0.0001)
    ('0.031', '< 0.001')
    """
    return f"{p:.3f}" if p >= 0.001 else "< 0.001"


def millions(params: float | None) -> str:
    """Parameters in millions, from millions: two decimals as in the paper, more for a tiny model.

    >>> millions(26.301417), millions(0.0034), millions(None)
    ('26.30', '0.0034', '–')
    """
    if params is None:
        return NOTHING
    return f"{params:.2f}" if params >= 0.01 else f"{params:.2g}"


def figure(spread: Spread | None, *caveats: str, form: Callable[[float], str] = percent) -> Cell:
    """Mean and deviation over folds, and the interval by actor; a dash for nothing."""
    if spread is None:
        return Cell(NOTHING)
    deviation = "" if spread.std is None else form(spread.std)
    return Cell(form(spread.mean), deviation, pair(spread.ci95), caveats, spread.mean)


def mean_and_deviation(spread: Spread) -> str:
    """Mean and deviation over folds, in per cent.

    >>> mean_and_deviation(Spread(0.5, 0.025, None)), mean_and_deviation(Spread(0.5, None, None))
    ('50.0 ± 2.5', '50.0')
    """
    return str(figure(spread))


def limits(spread: Spread | None) -> str:
    """The 95 % interval, in per cent.

    >>> limits(Spread(0.5, None, (0.45, 0.561))), limits(None)
    ('45.0 to 56.1', '–')
    """
    return pair(None if spread is None else spread.ci95)


def difference(found: Difference) -> str:
    """A difference in points with its interval."""
    return f"{percent(found.mean, signed=True)} ({pair(found.ci95, signed=True)})"


def equivalence(found: Difference) -> str:
    """The claim of equivalence, and its p: "within 2 points p 0.841"."""
    return f"within {100 * found.margin:g} points p {p_value(found.p_equivalent)}"


def versus(found: Difference | str) -> str:
    """A difference in points, with its interval, its p value, Holm's, and that of equivalence.

    >>> versus(Difference(-0.032, (-0.061, -0.004), 0.0312, 0.187, 0.02, 0.841, folds=6, actors=24))
    '−3.2 (−6.1 to −0.4), p 0.031, Holm 0.187, within 2 points p 0.841'
    >>> versus("not run")
    '–'
    """
    if isinstance(found, str):
        return NOTHING
    return f"{difference(found)}, p {p_value(found.p)}, Holm {p_value(found.p_holm)}, {equivalence(found)}"
