"""The paper's two tables, line by line, with the rows that were run; one for all other models; and one for
each further pair of encoders.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from cfnsr.data.folds import SUFFIX
from cfnsr.evaluation.comparison import Difference
from cfnsr.evaluation.names import (
    PAPERS,
    REFERENCE,
    Encoders,
    called,
    encoders_of,
    entry_of,
    reference_of,
    title_of,
    uses,
)
from cfnsr.evaluation.summary import Paper, Row, paper_of

SHOWN = ("nested", "paper")  # the protocols the paper's tables have columns for
HONEST = ("nested", "leave_one_actor_out")  # those that a table of other encoders may be of


@dataclass(frozen=True, eq=False)
class Line:
    """One line of a table.

    Args:
        title: what the paper calls it, or the model's name.
        model: its name in the zoo.
        fusion: where the modalities meet; None for a model that the zoo does not know.
        paper: the paper's figures, if it has the model.
        rows: protocol -> the row that was run.
        pair: of encoders that the table is of.
        protocol: whose accuracy the table shows.
    """

    title: str
    model: str
    fusion: str | None
    paper: Paper | None
    rows: Mapping[str, Row]
    pair: Encoders = PAPERS
    protocol: str = "nested"

    @property
    def nested(self) -> Row | None:
        """The honest row."""
        return self.rows.get(self.protocol)

    @property
    def as_paper(self) -> Row | None:
        """The row that was run and chosen as the paper's was."""
        return self.rows.get("paper")

    @property
    def normalised(self) -> Row | None:
        """The row with features standardised per speaker."""
        return self.rows.get(self.protocol + SUFFIX)

    @cached_property
    def params(self) -> tuple[tuple[int, int], ...]:
        """Parameters of our model, in all and trained; more than one pair where its rows differ."""
        runs = [row.runs[0] for row in self.rows.values()]
        return tuple(dict.fromkeys((run.params, run.trained_params) for run in runs))

    @property
    def is_reference(self) -> bool:
        """Whether the other lines are compared with this one."""
        return self.model == reference_of(self.pair)

    @property
    def versus(self) -> Difference | str:
        """The honest row's difference to the table's reference, or why there is none."""
        if self.nested is None:
            return "not run"
        if self.nested.pair != self.pair:
            return f"compared in the table of {called(self.nested.pair)}"
        return self.nested.versus


@dataclass(frozen=True, eq=False)
class Table:
    """A table of the report: one of the paper's, that of the other models, or one of other encoders.

    Args:
        pair: of encoders; the paper's but for the last kind.
        protocol: whose accuracy a table of other encoders shows; there is a column for its sister with
            features standardised per speaker.
    """

    name: str
    lines: tuple[Line, ...]
    pair: Encoders = PAPERS
    protocol: str = "nested"

    @property
    def of_features(self) -> bool:
        """Whether it is of other encoders than the paper's."""
        return self.pair != PAPERS

    @property
    def condition(self) -> str | None:
        """The caveat of the column with standardised features; None where no line has such a row."""
        found = [line.normalised.caveat for line in self.lines if line.normalised is not None]
        return found[0] if found else None


def layout(rows: Sequence[Row]) -> list[Table]:
    """The tables of which at least one line was run under the nested or the paper's protocol.

    A model that stands in no table of the paper, such as a user's own, gets one with CFN-SR beside it.
    Rows with other encoders stand in a table of their own per pair, under an honest protocol each.
    """
    from cfnsr.models.zoo import TABLES

    by_model: dict[str, dict[str, Row]] = {}
    for row in rows:
        if row.protocol in SHOWN and row.pair == PAPERS:
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
    return [*[table for table in made if any(line.rows for line in table.lines)], *_of_features(rows)]


def reasons(table: Table) -> list[str]:
    """Why lines that were run have no difference to CFN-SR, a sentence for each reason."""
    without: dict[str, list[str]] = {}
    for line in table.lines:
        if line.nested is not None and isinstance(line.versus, str) and not line.is_reference:
            without.setdefault(line.versus, []).append(line.title)
    return [f"No difference to CFN-SR for {', '.join(lines)}: {why}." for why, lines in without.items()]


def _of_features(rows: Sequence[Row]) -> list[Table]:
    """A table for each pair of other encoders under each honest protocol that it was run under.

    A row of one modality stands in the table of every pair that uses its encoder.
    """
    made = []
    for pair in dict.fromkeys(row.pair for row in rows if row.pair != PAPERS):
        for protocol in HONEST:
            shown = [row for row in rows if row.protocol in (protocol, protocol + SUFFIX)]
            if not any(row.pair == pair for row in shown):
                continue
            lines: dict[str, dict[str, Row]] = {}
            for row in shown:
                if row.pair == pair or (not all(row.encoders) and uses(pair, row.encoders)):
                    lines.setdefault(row.model, {})[row.protocol] = row
            # The modalities alone first, as in the paper's table.
            order = sorted(lines, key=lambda model: (all(encoders_of(model)), not encoders_of(model).video))
            made.append(
                Table(
                    f"Table 1 with {called(pair)}"
                    + (", leave one actor out" if protocol != "nested" else ""),
                    tuple(_line(title_of(model), model, lines, pair, protocol) for model in order),
                    pair,
                    protocol,
                )
            )
    return made


def _line(
    title: str,
    model: str,
    by_model: Mapping[str, Mapping[str, Row]],
    pair: Encoders = PAPERS,
    protocol: str = "nested",
) -> Line:
    found = entry_of(model)
    fusion = found.fusion if found else None
    return Line(title, model, fusion, paper_of(model), by_model.get(model, {}), pair, protocol)
