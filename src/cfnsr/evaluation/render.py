"""One form of a figure and of a table: built once, written as Markdown here and as HTML by `macros.html`."""

import html
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cfnsr.evaluation.comparison import Difference, Equivalence
from cfnsr.evaluation.estimates import Estimate, Interval

if TYPE_CHECKING:
    from jinja2 import Template

NOTHING = "–"
TWO_DECIMALS = "{:.2f}".format


@dataclass(frozen=True)
class Cell:
    """A figure as it is shown."""

    value: str
    deviation: str = ""  #: over folds
    interval: str = ""  #: of 95 %, which a heat map of the page shows; other tables have a column for it
    caveats: tuple[str, ...] = ()  #: what must stand beside it; empty ones are left out
    share: float | None = None  #: the figure as a fraction, by which a heat map is shaded
    hint: str = ""  #: what the page shows where a mouse rests
    link: str = ""  #: where the page leads from it

    def __str__(self) -> str:
        """Write the figure in a line of text.

        >>> str(Cell("50.0", deviation="2.5", caveats=("3 of 6 folds", "")))
        '50.0 ± 2.5 (3 of 6 folds)'
        """
        deviation = f" ± {self.deviation}" if self.deviation else ""
        return self.value + deviation + "".join(f" ({caveat})" for caveat in self.caveats if caveat)


Line = dict[str, Cell | str]


@dataclass(frozen=True)
class Table:
    """A table of figures."""

    title: str
    rows: Sequence[Mapping[str, Cell | str]]  #: by the heads of the columns, the same in every row
    texts: int = 1  #: columns, from the first, that are text; the others are aligned as numbers
    notes: Sequence[str] = ()  #: below it, a paragraph each
    method: Sequence[str] = ()  #: how its figures are computed, likewise

    @property
    def columns(self) -> list[str]:
        """The heads of the columns."""
        return list(self.rows[0]) if self.rows else []

    def markdown(self) -> str:
        """Write the table alone.

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
        """Write the table with its heading and notes, as paragraphs of Markdown."""
        return [f"## {self.title}", self.markdown(), *map(safe, self.notes), *self.method]


def safe(text: str) -> str:
    """Escape text that could end a cell, or begin a tag, a link or code: names come from files.

    >>> print(safe("<b> [x](y) | z"))
    &lt;b&gt; \\[x\\](y) \\| z
    """
    return re.sub(r"([\\`\[\]|])", r"\\\1", html.escape(" ".join(text.split()), quote=False))


def percent(value: float | None, signed: bool = False) -> str:
    """Format a fraction in per cent with one decimal, without the sign for per cent.

    >>> percent(0.7576), percent(-0.0123, signed=True), percent(None)
    ('75.8', '−1.2', '–')
    """
    if value is None or value != value:
        return NOTHING
    return f"{100 * value:{'+' if signed else ''}.1f}".replace("-", "−")


def published(value: float | None) -> str:
    """Format a figure of the paper in per cent, with the two decimals it has there."""
    return NOTHING if value is None else f"{100 * value:.2f}"


def pair(ci95: Interval | None, signed: bool = False) -> str:
    """Format an interval's two limits, in per cent.

    >>> pair((-0.061, 0.02), signed=True), pair(None)
    ('−6.1 to +2.0', '–')
    """
    return NOTHING if ci95 is None else " to ".join(percent(limit, signed) for limit in ci95)


def p_value(p: float) -> str:
    """Format a p value with three decimals."""
    return f"{p:.3f}" if p >= 0.001 else "< 0.001"


def millions(params: float | None) -> str:
    """Format parameters in millions, from millions: two decimals as in the paper, more for a tiny model.

    >>> millions(26.301417), millions(0.0034), millions(None)
    ('26.30', '0.0034', '–')
    """
    if params is None:
        return NOTHING
    return f"{params:.2f}" if params >= 0.01 else f"{params:.2g}"


def figure(estimate: Estimate | None, *caveats: str, form: Callable[[float], str] = percent) -> Cell:
    """Format mean and deviation over folds, and the interval by actor; a dash for nothing.

    >>> str(figure(Estimate(0.5, 0.025))), str(figure(None))
    ('50.0 ± 2.5', '–')
    """
    if estimate is None:
        return Cell(NOTHING)
    deviation = "" if estimate.std is None else form(estimate.std)
    return Cell(form(estimate.mean), deviation, pair(estimate.ci95), caveats, estimate.mean)


def limits(estimate: Estimate | None) -> str:
    """Format the 95 % interval, in per cent."""
    return pair(None if estimate is None else estimate.ci95)


def difference(found: Difference) -> str:
    """Format a difference in points with its interval."""
    return f"{percent(found.mean, signed=True)} ({pair(found.ci95, signed=True)})"


def equivalence(found: Equivalence) -> str:
    """Format the claim of equivalence, and its p: "within 2 points p 0.841"."""
    return f"within {100 * found.margin:g} points p {p_value(found.p)}"


def tested(found: Difference) -> str:
    """Format a difference in points, with its interval, its p value, Holm's, and that of equivalence.

    >>> within = Equivalence(margin=0.02, p=0.841)
    >>> tested(Difference(-0.032, (-0.061, -0.004), 0.0312, 0.187, within, folds=6, actors=24))
    '−3.2 (−6.1 to −0.4), p 0.031, Holm 0.187, within 2 points p 0.841'
    """
    p, holm = p_value(found.p), p_value(found.p_holm)
    return f"{difference(found)}, p {p}, Holm {holm}, {equivalence(found.equivalence)}"


def template(name: str, **filters: Callable[..., Any]) -> "Template":
    """Load a template by its file's name: HTML is escaped, in Markdown the filter `text` does it."""
    from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

    environment = Environment(
        loader=PackageLoader("cfnsr.evaluation"),
        autoescape=select_autoescape(),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"percent": percent, "text": lambda value: safe(str(value)), **filters}
    return environment.get_template(name)
