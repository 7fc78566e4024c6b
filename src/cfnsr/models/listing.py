"""The zoo as a list: every model's parameters beside the paper's."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass

import torch

from cfnsr.models.entries import ENTRIES, NOTES, TABLES
from cfnsr.models.parameters import count_parameters, count_total, whisper_encoder
from cfnsr.models.settings import Settings
from cfnsr.models.zoo import build

OPTIMISTIC = "optimistic: the best epoch on the test fold"
COUNTED = (
    "all that a prediction needs. A model that hears by a pretrained speech encoder counts Whisper tiny.en's "
    f"{whisper_encoder():,}, which run once for each speed it listens at, three unless set otherwise. "
    "Discriminants, solved in closed form, count too"
)


@dataclass(frozen=True)
class ListedModel:
    """One model: cfnsr's beside the paper's. `paper_params` are millions, `paper_accuracy` is a fraction.

    `params` are all that a prediction needs, with Whisper tiny.en's encoder where the model reads its states;
    `trained_params` those of them that are trained.
    """

    name: str
    params: int
    paper_params: float | None
    paper_accuracy: float | None
    fusion: str
    trained_params: int

    @property
    def millions(self) -> str:
        """The paper's parameters in words."""
        return "–" if self.paper_params is None else f"{self.paper_params:.2f} M"

    @property
    def accuracy(self) -> str:
        """The paper's accuracy in words."""
        return "–" if self.paper_accuracy is None else f"{100 * self.paper_accuracy:.2f} %"


def rows() -> Iterator[ListedModel]:
    """List every model in the order of the paper's tables, then a user's own."""
    for name, found in ENTRIES.items():
        with torch.device("meta"):  # shapes alone: counting needs no memory and no initial values
            model = build(name, Settings())
        total, trained = count_total(model, whisper_encoder()), count_parameters(model)
        yield ListedModel(name, total, found.paper_params, found.paper_accuracy, found.fusion, trained)


def as_json() -> list[dict[str, object]]:
    """Return the rows that `cfnsr models --json` prints."""
    return [asdict(row) for row in rows()]


def as_text() -> str:
    """Write the text of `cfnsr models`: the list, then why some counts are not the paper's."""
    lines = [f"{'model':<28}{'params':>12}{'trained':>12}{'paper':>12}{'paper accuracy*':>18}  fusion"]
    lines += [
        f"{row.name:<28}{row.params:>12,}{row.trained_params:>12,}{row.millions:>12}{row.accuracy:>18}  "
        f"{row.fusion}"
        for row in rows()
    ]
    lines += [f"* {OPTIMISTIC}", f"params: {COUNTED}"]
    lines += [f"{name}: {note}" for name, note in NOTES.items()]
    return "\n".join(lines)


def as_markdown() -> str:
    """Write the list as a Markdown table, for the README."""
    titles = {name: title for table in reversed(TABLES.values()) for title, name in table}
    lines = [
        "| model | in the paper | fusion | parameters ³ | trained | paper | paper's accuracy ¹ |",
        "| --- | --- | --- | ---: | ---: | ---: | ---: |",
    ]
    lines += [
        f"| `{row.name}` | {titles.get(row.name, '–')} | {row.fusion} | "
        f"{row.params:,}{' ²' if row.name in NOTES else ''} | "
        f"{row.trained_params:,} | {row.millions} | {row.accuracy} |"
        for row in rows()
    ]
    notes = " ".join(f"{name}: {note}" for name, note in NOTES.items())
    return "\n".join([*lines, "", f"¹ {OPTIMISTIC}. ² {notes} ³ {COUNTED}."])
