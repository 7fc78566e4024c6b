"""The rows of each table: the paper's two, one of all other models, and one a pair of encoders."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from cfnsr.data.folds import SUFFIX
from cfnsr.evaluation.comparison import Difference
from cfnsr.evaluation.names import (
    PAPERS,
    REFERENCE,
    Encoders,
    called,
    encoders_of,
    reference_of,
    title_of,
    uses,
)
from cfnsr.evaluation.summary import Row

SHOWN = ("nested", "paper")  # the protocols the paper's tables have columns for
HONEST = ("nested", "leave_one_actor_out")  # those that a table of other encoders may be of


@dataclass(frozen=True, eq=False)
class Place:
    """A model's place in a table.

    Args:
        title: what the paper calls it, or the model's name.
        model: its name in the zoo.
        rows: protocol -> the row that was run.
        pair: of encoders that the table is of.
        protocol: whose accuracy the table shows.
    """

    title: str
    model: str
    rows: Mapping[str, Row]
    pair: Encoders = PAPERS
    protocol: str = "nested"

    @property
    def nested(self) -> Row | None:
        """The row under the table's own, honest protocol."""
        return self.rows.get(self.protocol)

    @property
    def normalised(self) -> Row | None:
        """The row with features standardised per speaker."""
        return self.rows.get(self.protocol + SUFFIX)

    @property
    def is_reference(self) -> bool:
        """True where the others are compared with this one."""
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
class Group:
    """The places of one table.

    Args:
        pair: of encoders.
        protocol: whose accuracy a table of other encoders shows; there is a column for its sister with
            features standardised per speaker.
    """

    name: str
    places: tuple[Place, ...]
    pair: Encoders = PAPERS
    protocol: str = "nested"

    @property
    def of_features(self) -> bool:
        """True for other encoders than the paper's."""
        return self.pair != PAPERS

    @property
    def condition(self) -> str | None:
        """The caveat of the column with standardised features; None where no place has such a row."""
        found = [place.normalised.caveat for place in self.places if place.normalised is not None]
        return found[0] if found else None


def layout(rows: Sequence[Row]) -> list[Group]:
    """The tables of which at least one place was run under the nested or the paper's protocol.

    A model that stands in no table of the paper, such as a user's own, gets one with CFN-SR beside it.
    Rows with other encoders stand in a table of their own per pair, under an honest protocol each.
    """
    from cfnsr.models.zoo import TABLES

    run = _by_model(row for row in rows if row.protocol in SHOWN and row.pair == PAPERS)
    lines = {f"Table {number}": lines for number, lines in sorted(TABLES.items())}
    titles = {model: title for table in TABLES.values() for title, model in table}
    others = [model for model in run if model not in titles]
    if others:
        beside = [REFERENCE] if REFERENCE in run else []
        lines["Other models"] = tuple((titles.get(model, model), model) for model in [*beside, *others])
    made = [
        Group(name, tuple(Place(title, model, run.get(model, {})) for title, model in table))
        for name, table in lines.items()
    ]
    return [*[group for group in made if any(place.rows for place in group.places)], *_of_features(rows)]


def _of_features(rows: Sequence[Row]) -> list[Group]:
    """A table for each pair of other encoders under each honest protocol that it was run under.

    A row of one modality stands in the table of every pair that uses its encoder.
    """
    made = []
    for pair in dict.fromkeys(row.pair for row in rows if row.pair != PAPERS):
        for protocol in HONEST:
            shown = [row for row in rows if row.protocol in (protocol, protocol + SUFFIX)]
            if not any(row.pair == pair for row in shown):
                continue
            run = _by_model(
                row
                for row in shown
                if row.pair == pair or (not all(row.encoders) and uses(pair, row.encoders))
            )
            # The modalities alone first, as in the paper's table.
            order = sorted(run, key=lambda model: (all(encoders_of(model)), not encoders_of(model).video))
            places = tuple(Place(title_of(model), model, run[model], pair, protocol) for model in order)
            under = ", leave one actor out" if protocol != "nested" else ""
            made.append(Group(f"Table 1 with {called(pair)}{under}", places, pair, protocol))
    return made


def _by_model(rows: Iterable[Row]) -> dict[str, dict[str, Row]]:
    found: dict[str, dict[str, Row]] = {}
    for row in rows:
        found.setdefault(row.model, {})[row.protocol] = row
    return found
