"""The model card of shared weights: that of their run, or one that claims no figures."""

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

from cfnsr.errors import InputError
from cfnsr.evaluation.card import LICENCES, PAPER, model_card
from cfnsr.evaluation.names import called, encoders_of
from cfnsr.evaluation.render import template
from cfnsr.evaluation.runs import read_runs
from cfnsr.evaluation.summary import Row, summarise
from cfnsr.evaluation.tables import safe
from cfnsr.files import read_json
from cfnsr.sharing.folder import CARD, WEIGHTS
from cfnsr.training.checkpoint import read_spec
from cfnsr.training.run import ABOUT

UNKNOWN = (
    "**No figures.** No finished run of these weights is at hand: they may be random, and nothing is known "
    "of how well they answer."
)
CHANGED = (
    "**No figures.** These weights were changed after they were loaded from others, and were not tested "
    "since: the others' figures are not theirs."
)
TAGS = ("emotion-recognition", "audio-visual", "multimodal", "cfn-sr")
LICENCE_LINE = re.compile(r"license(?:_name|_link)?: \S.*")


def card_of(folder: Path, origin: Path | None, *, same: bool) -> str:
    """Write the card of a checkpoint that is to be shared, as Markdown with a YAML head.

    Args:
        origin: the folder the model was loaded from: a run, or a shared folder; None where not known.
        same: whether the model is still what it was there. If so the card is the one that lies there, or is
            made from the run; else it has no figures, but the same licence.

    Raises:
        InputError: the run is not finished or broken, or the card there is no text.
    """
    with (folder / WEIGHTS).open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    there = "" if origin is None else _read(origin / CARD)
    if origin is not None and same:
        if sha256 in there:
            return there  # written of these very weights
        if (origin / ABOUT).is_file():
            if not _about(origin).get("finished"):
                raise InputError(f"{origin} is a run that is not finished: train it to its end with --resume")
            return model_card(origin, _cross_validation(origin))
        if there:
            return there
    config, size = read_spec(folder), (folder / WEIGHTS).stat().st_size
    licence, data = _licence(origin, there)
    head = ["---", *licence, "library_name: cfnsr", "tags:", *(f"- {tag}" for tag in TAGS), "---"]
    parts = [
        "\n".join(head),
        f"# {safe(config.model)}",
        f"A model of cfnsr for {len(config.labels)} emotions ({safe(', '.join(config.labels.emotions))}). It "
        f"reads {safe(called(encoders_of(config.model)))}. The weights are {size:,} bytes, "
        f"SHA-256 `{sha256}`.",
        UNKNOWN if same or origin is None else CHANGED,
        "## How to load it",
        "```python\nimport cfnsr\n\n"
        'model = cfnsr.from_pretrained("FOLDER")  # the folder of this file, or its name on the hub\n```',
        "## Data",
        data,
        "## Law",
        template("act.md").render().rstrip(),
        "## Citation",
        f"- {PAPER}",
    ]
    return "\n\n".join(parts) + "\n"


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is no text in UTF-8 ({error.reason}): expected a model card") from None


def _about(folder: Path) -> dict[str, object]:
    return read_json(folder / ABOUT, "the description of a run")


def _cross_validation(folder: Path) -> Sequence[Row]:
    """Cross-validation that a run lies in, as `cfnsr crossval` lays it out; nothing of a run alone."""
    here = folder.resolve()
    if not (here.name.startswith("fold_") and here.parent.name.startswith("seed_")):
        return ()
    try:
        runs = read_runs(here.parents[1])
    except InputError:  # another fold is at fault, which is no reason to keep this one back
        return ()
    return summarise(runs) if len(runs) > 1 else ()


def _licence(origin: Path | None, card: str) -> tuple[list[str], str]:
    """Return the lines of the head that name the licence, and a sentence about the data.

    Args:
        origin: the folder that the weights come from, though they may have been changed since.
        card: the one that lies there.
    """
    places = (
        () if origin is None else (origin, origin.parent)
    )  # a run keeps checkpoints in folders of its own
    run = next((place for place in places if (place / ABOUT).is_file()), None)
    if run is not None:
        corpus = _about(run).get("corpus")
        name = str(corpus.get("name")) if isinstance(corpus, dict) else "an unknown corpus"
        come = f"These weights come from a training on {safe(name)}."
        if name.lower() not in LICENCES:
            lines = ["license: other", "license_name: that-of-the-training-data", f"license_link: {CARD}"]
            return lines, f"{come} cfnsr does not know its licence: look it up before sharing weights."
        licence, text, _ = LICENCES[name.lower()]
        said = " ".join(text.split())
        return [f"license: {licence}"], f"{come} {said} The weights are shared under the same licence."
    head = card.split("\n---\n")[0].splitlines()[1:] if card.startswith("---\n") else []
    lines = [line for line in head if LICENCE_LINE.fullmatch(line)]
    if lines:
        return lines, "The head of this file names the licence of the weights that these come from."
    unknown = "cfnsr does not know what they were trained on, if on anything"
    return ["license: unknown"], f"{unknown}: name their licence before sharing them."
