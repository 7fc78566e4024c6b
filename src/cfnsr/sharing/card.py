"""The model card of shared weights: that of their run, or one that claims no figures."""

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

from cfnsr.errors import InputError
from cfnsr.evaluation.card import PAPER, TAGS, licence_lines, licence_of, model_card
from cfnsr.evaluation.encoders import describe, encoders_of
from cfnsr.evaluation.render import safe, template
from cfnsr.evaluation.rows import Row, summarise
from cfnsr.evaluation.runs import read_runs
from cfnsr.files import read_json
from cfnsr.sharing.folder import CARD, WEIGHTS
from cfnsr.training.checkpoint import read_spec
from cfnsr.training.run import ABOUT

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
    there = _read(origin / CARD) if origin is not None else ""
    if origin is not None and same:
        if sha256 in there:
            return there  # written of these very weights
        if (origin / ABOUT).is_file():
            if not _about(origin).get("finished"):
                raise InputError(f"{origin} is a run that is not finished: train it to its end with --resume")
            return model_card(origin, _cross_validation(origin))
        if there:
            return there
    config = read_spec(folder)
    licence, data = _licence(origin, there)
    return template("card_without_run.md").render(
        licence_lines=licence,
        tags=TAGS,
        model=config.model,
        emotions=config.labels.emotions,
        reads=describe(encoders_of(config.model)),
        size=(folder / WEIGHTS).stat().st_size,
        sha256=sha256,
        changed=origin is not None and not same,
        data=data,
        paper=PAPER,
    )


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
    """Summarise the cross-validation that a run lies in, as `cfnsr crossval` lays it out."""
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
    # A run keeps checkpoints in folders of its own.
    places = () if origin is None else (origin, origin.parent)
    run = next((place for place in places if (place / ABOUT).is_file()), None)
    if run is not None:
        corpus = _about(run).get("corpus")
        name = str(corpus.get("name")) if isinstance(corpus, dict) else "an unknown corpus"
        terms = "cfnsr does not know its licence: look it up before sharing weights."
        if licence := licence_of(name):
            terms = f"{licence.text} The weights are shared under the same licence."
        return licence_lines(name), f"These weights come from a training on {safe(name)}. {terms}"
    head = card.split("\n---\n")[0].splitlines()[1:] if card.startswith("---\n") else []
    lines = [line for line in head if LICENCE_LINE.fullmatch(line)]
    if lines:
        return lines, "The head of this file names the licence of the weights that these come from."
    unknown = "cfnsr does not know what they were trained on, if on anything"
    return ["license: unknown"], f"{unknown}: name their licence before sharing them."
