"""The zoo as a list: every model's parameters beside the paper's."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass

import torch

from cfnsr.models.parameters import count_total, whisper_encoder
from cfnsr.models.zoo import ENTRIES, TABLES, Settings, build, count_parameters

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
        f"{row.name:<28}{row.params:>12,}{row.trained_params:>12,}{_millions(row):>12}{_accuracy(row):>18}  "
        f"{row.fusion}"
        for row in rows()
    ]
    lines += [f"* {OPTIMISTIC}", f"params: {COUNTED}"]
    lines += [f"{name}: {found.note}" for name, found in ENTRIES.items() if found.note]
    return "\n".join(lines)


def as_markdown() -> str:
    """Write the list as a Markdown table, for the README."""
    titles = {name: title for table in reversed(TABLES.values()) for title, name in table}
    lines = [
        "| model | in the paper | fusion | parameters ³ | trained | paper | paper's accuracy ¹ |",
        "| --- | --- | --- | ---: | ---: | ---: | ---: |",
    ]
    notes = []
    for row in rows():
        mark = ""
        if ENTRIES[row.name].note:
            notes.append(f"{row.name}: {ENTRIES[row.name].note}")
            mark = " ²"
        lines.append(
            f"| `{row.name}` | {titles.get(row.name, '–')} | {row.fusion} | {row.params:,}{mark} | "
            f"{row.trained_params:,} | {_millions(row)} | {_accuracy(row)} |"
        )
    return "\n".join([*lines, "", f"¹ {OPTIMISTIC}. ² {' '.join(notes)} ³ {COUNTED}."])


def _millions(row: ListedModel) -> str:
    return "–" if row.paper_params is None else f"{row.paper_params:.2f} M"


def _accuracy(row: ListedModel) -> str:
    return "–" if row.paper_accuracy is None else f"{100 * row.paper_accuracy:.2f} %"
