"""The paper's two tables, line by line, with the rows that were run; and one for all other models."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from cfnsr.evaluation.summary import REFERENCE, Paper, Row, paper_of

SHOWN = ("nested", "paper")  # the protocols these tables have columns for


@dataclass(frozen=True, eq=False)
class Line:
    """One line of a table.

    Args:
        title: what the paper calls it, or the model's name.
        model: its name in the zoo.
        fusion: where the modalities meet; None for a model that the zoo does not know.
        paper: the paper's figures, if it has the model.
        rows: protocol -> the row that was run.
    """

    title: str
    model: str
    fusion: str | None
    paper: Paper | None
    rows: Mapping[str, Row]

    @property
    def nested(self) -> Row | None:
        """The honest row."""
        return self.rows.get("nested")

    @property
    def as_paper(self) -> Row | None:
        """The row that was run and chosen as the paper's was."""
        return self.rows.get("paper")

    @cached_property
    def params(self) -> tuple[int, ...]:
        """Parameters of our model; more than one where its rows differ (another preset)."""
        return tuple(dict.fromkeys(row.runs[0].params for row in self.rows.values()))

    @property
    def is_reference(self) -> bool:
        """Whether the other lines are compared with this one."""
        return self.model == REFERENCE


@dataclass(frozen=True, eq=False)
class Table:
    """A table of the report: one of the paper's, or that of the other models."""

    name: str
    lines: tuple[Line, ...]


def layout(rows: Sequence[Row]) -> list[Table]:
    """The tables of which at least one line was run under the nested or the paper's protocol.

    A model that stands in no table of the paper, such as a user's own, gets one with CFN-SR beside it.
    """
    from cfnsr.models.zoo import TABLES

    by_model: dict[str, dict[str, Row]] = {}
    for row in rows:
        if row.protocol in SHOWN:
            by_model.setdefault(row.model, {})[row.protocol] = row
    made = [
        Table(f"Table {number}", tuple(_line(title, model, by_model) for title, model in lines))
        for number, lines in sorted(TABLES.items())
    ]
    placed = {line.model for table in made for line in table.lines}
    others = [model for model in by_model if model not in placed]
    if others:
        titles = {model: title for lines in TABLES.values() for title, model in lines}
        beside = [REFERENCE] if REFERENCE in by_model else []
        made.append(
            Table(
                "Other models",
                tuple(_line(titles.get(model, model), model, by_model) for model in [*beside, *others]),
            )
        )
    return [table for table in made if any(line.rows for line in table.lines)]


def reasons(table: Table) -> list[str]:
    """Why lines that were run have no difference to CFN-SR, a sentence for each reason."""
    without: dict[str, list[str]] = {}
    for line in table.lines:
        if line.nested is not None and isinstance(line.nested.versus, str) and not line.is_reference:
            without.setdefault(line.nested.versus, []).append(line.title)
    return [f"No difference to CFN-SR for {', '.join(lines)}: {why}." for why, lines in without.items()]


def _line(title: str, model: str, by_model: Mapping[str, Mapping[str, Row]]) -> Line:
    from cfnsr.models.zoo import ENTRIES

    found = ENTRIES.get(model)
    return Line(title, model, found.fusion if found else None, paper_of(model), by_model.get(model, {}))
