"""The model card of a checkpoint: README.md beside its config.json and model.safetensors.

In the form of the Hugging Face hub (a YAML head, then Markdown). Source: Mitchell et al., "Model Cards for
Model Reporting", FAT* 2019.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path

from cfnsr import __version__
from cfnsr.corpus.scheme import SCHEMES, Licence
from cfnsr.corpus.take import Actor
from cfnsr.data.folds import SUFFIX
from cfnsr.errors import InputError
from cfnsr.evaluation.encoders import describe, encoders_of, fusion_of
from cfnsr.evaluation.metrics import TOO_FEW
from cfnsr.evaluation.render import figure, limits, safe, template
from cfnsr.evaluation.rows import Row, summarise
from cfnsr.features import FEATURES
from cfnsr.files import write_text
from cfnsr.training.run import Run

CARD, WEIGHTS = "README.md", "model.safetensors"
TAGS = ("emotion-recognition", "audio-visual", "multimodal", "cfn-sr")
YAML_WORDS = {"true", "false", "yes", "no", "on", "off", "null", "y", "n"}
PAPER = (
    "Fu Z, Liu F, Wang H, Qi J, Fu X, Zhou A, Li Z (2021). A cross-modal fusion network based on "
    "self-attention and residual structure for multimodal emotion recognition. arXiv 2111.02172."
)


def write_card(folder: Path, rows: Sequence[Row] = ()) -> Path:
    """Write the model card of a checkpoint beside it; see `model_card`."""
    path = folder / CARD
    write_text(path, model_card(folder, rows))
    return path


def model_card(folder: Path, rows: Sequence[Row] = ()) -> str:
    """Make the model card of a checkpoint, Markdown with a YAML head.

    Args:
        folder: of a finished run: run.json and predictions.csv beside config.json and model.safetensors.
        rows: of `summarise`, the cross-validation that the run belongs to; its row of the same model and
            protocol, and that with speakers standardised, stand beside the run's own fold.

    Raises:
        InputError: the folder is no checkpoint, or none of a finished run.
    """
    from cfnsr.training.checkpoint import read_spec

    config = read_spec(folder)
    weights = folder / WEIGHTS
    if not weights.is_file():
        raise InputError(f"{weights} is missing: expected a checkpoint folder, as `cfnsr train` writes it")
    run = Run.read(folder)
    if run.model != config.model:
        raise InputError(
            f"{folder} has a run of {run.model} and a checkpoint of {config.model}: expected those of one "
            "training; train it again"
        )
    encoders, preparation, licence = encoders_of(run.model), config.preparation, licence_of(run.corpus)
    features = [FEATURES[name] for name in encoders if name in FEATURES]
    cited = [PAPER, *(licence.works if licence else ()), *filter(None, (each.citation for each in features))]
    speech = ""
    if any(each.pretrained for each in features) and preparation.speech_encoder:
        name, sha256 = safe(preparation.speech_encoder), safe(preparation.speech_sha256)
        speech = f"speech encoder {name} (SHA-256 `{sha256}`; licence: see its own card)"
        cited.append(f"The {speech}.")
    plain, content = run.protocol.removesuffix(SUFFIX), weights.read_bytes()
    return template("card.md", figure=figure, limits=limits, scalar=_scalar).render(
        run=run,
        row=summarise([run])[0],
        licence=licence,
        licence_lines=licence_lines(run.corpus),
        tags=dict.fromkeys([*TAGS, run.corpus, *filter(None, encoders)]),
        reads=describe(encoders),
        encoders=encoders,
        fusion=fusion_of(run.model),
        frozen=run.settings.get("frozen_encoders") and run.settings.get("pretrain") is not False,
        normalised=config.normalised,
        standardised=run.protocol.endswith(SUFFIX),
        preparation=preparation,
        speech_encoder=speech,
        version=__version__,
        size=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        people=_people(run),
        too_few=TOO_FEW,
        whole=[row for row in rows if row.model == run.model and row.protocol in (plain, plain + SUFFIX)],
        cited=[" ".join(work.split()) for work in cited],
    )


def licence_of(corpus: str) -> Licence | None:
    """Find the licence of a corpus, if it is known."""
    scheme = SCHEMES.get(corpus.lower())
    return scheme.licence if scheme else None


def licence_lines(corpus: str) -> list[str]:
    """Write the licence of weights that were trained on a corpus, as lines of a card's head."""
    if licence := licence_of(corpus):
        return [f"license: {licence.name}"]
    return ["license: other", "license_name: that-of-the-training-data", f"license_link: {CARD}"]


def _scalar(value: str) -> str:
    r"""Write a YAML scalar: plain where it can be nothing else, else as JSON, which is YAML.

    >>> _scalar("cc-by-nc-sa-4.0"), _scalar('a: "b"')
    ('cc-by-nc-sa-4.0', '"a: \\"b\\""')
    """
    plain = re.fullmatch(r"[A-Za-z][A-Za-z0-9.-]*", value) and value.lower() not in YAML_WORDS
    return value if plain else json.dumps(value)


def _people(run: Run) -> dict[str, tuple[Actor, ...]]:
    """Say of each split's actors what was done with them."""
    refit = run.settings.get("refit") and run.selected_on == "validation"
    chose = "chose the temperature" if run.keeps_last else "chose the epoch"
    parts = {"trained on": run.train_actors}
    if run.validation_actors:
        parts[chose + (", then trained on too" if refit else "")] = run.validation_actors
    tested = "chose the epoch and tested on" if run.optimistic and not run.keeps_last else "tested on"
    return {**parts, tested: run.test_actors}
