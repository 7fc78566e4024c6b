"""The model card of a checkpoint: README.md beside its config.json and model.safetensors.

In the form of the Hugging Face hub (a YAML head, then Markdown). Source: Mitchell et al., "Model Cards for
Model Reporting", FAT* 2019.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cfnsr import __version__
from cfnsr.corpus import SCHEMES
from cfnsr.data.folds import SUFFIX
from cfnsr.errors import InputError
from cfnsr.evaluation.metrics import TOO_FEW
from cfnsr.evaluation.names import called, encoders_of, fusion_of
from cfnsr.evaluation.render import template
from cfnsr.evaluation.runs import Run, read_run
from cfnsr.evaluation.sections import protocol_of
from cfnsr.evaluation.summary import Row, summarise
from cfnsr.evaluation.tables import NOTHING, Line, Table, figure, limits, percent, safe
from cfnsr.files import write_text

CARD, WEIGHTS = "README.md", "model.safetensors"
LICENCES = {scheme.name: scheme.licence for scheme in SCHEMES.values() if scheme.licence is not None}
PAPER = (
    "Fu Z, Liu F, Wang H, Qi J, Fu X, Zhou A, Li Z (2021). A cross-modal fusion network based on "
    "self-attention and residual structure for multimodal emotion recognition. arXiv 2111.02172."
)
OPENFACE = (
    "Baltrušaitis T, Zadeh A, Lim YC, Morency L-P (2018). OpenFace 2.0: Facial Behavior Analysis "
    "Toolkit. IEEE FG 2018."
)


def write_card(folder: Path, rows: Sequence[Row] = ()) -> Path:
    """Write the model card of a checkpoint beside it; see `model_card`."""
    path = folder / CARD
    write_text(path, model_card(folder, rows))
    return path


def model_card(folder: Path, rows: Sequence[Row] = ()) -> str:
    """The model card of a checkpoint as Markdown with a YAML head.

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
    run = read_run(folder)
    if run.model != config.model:
        raise InputError(
            f"{folder} has a run of {run.model} and a checkpoint of {config.model}: expected those of one "
            "training; train it again"
        )
    (row,) = summarise([run])
    encoders, preparation = encoders_of(run.model), config.preparation
    licence, content = LICENCES.get(run.corpus.lower()), weights.read_bytes()
    cited = [PAPER, *(licence.works if licence else ())]
    if "openface" in encoders:
        cited.append(OPENFACE)
    speech = ""
    if "speech" in encoders and preparation.speech_encoder:
        name, sha256 = safe(preparation.speech_encoder), safe(preparation.speech_sha256)
        speech = f"speech encoder {name} (SHA-256 `{sha256}`; licence: see its own card)"
        cited.append(f"The {speech}.")
    settings = [{"setting": str(name), "value": str(value)} for name, value in run.settings.items()]
    return template("card.md").render(
        run=run,
        head=_head(run),
        reads=called(encoders),
        encoders=encoders,
        needed={"openface", "speech"} & set(encoders),
        fusion=fusion_of(run.model),
        frozen=run.settings.get("frozen_encoders") and run.settings.get("pretrain") is not False,
        normalised=config.normalised,
        standardised=run.protocol.endswith(SUFFIX),
        preparation=preparation,
        speech_encoder=speech,
        version=__version__,
        size=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        licence=licence.text if licence else "",
        people=_people(run),
        actors=row.accuracy_of,
        figures=_figures(row),
        whole=_cross_validation(run, rows),
        settings=Table("", settings, texts=2).markdown(),
        cited=[" ".join(work.split()) for work in cited],
    )


def _head(run: Run) -> str:
    """The YAML head; each value is written as JSON, which is YAML, so that no name can break out of it."""
    licence = LICENCES.get(run.corpus.lower())
    modalities = [each for each in encoders_of(run.model) if each]
    head: dict[str, Any] = {
        "license": licence.name if licence else "other",
        **({} if licence else {"license_name": "that-of-the-training-data", "license_link": CARD}),
        "library_name": "cfnsr",
        "tags": ["emotion-recognition", "audio-visual", "multimodal", "cfn-sr", run.corpus, *modalities],
        "metrics": ["accuracy", "recall"],
    }
    lines = []
    for key, value in head.items():
        if isinstance(value, list):
            lines += [f"{key}:", *[f"- {_scalar(each)}" for each in dict.fromkeys(value)]]
        else:
            lines.append(f"{key}: {_scalar(value)}")
    return "\n".join(lines)


def _scalar(value: str) -> str:
    """A YAML scalar: plain where it can be nothing else, quoted otherwise.

    >>> _scalar("cc-by-nc-sa-4.0"), _scalar('a: "b"')
    ('cc-by-nc-sa-4.0', '"a: \\\\"b\\\\""')
    """
    plain = value.isascii() and value[:1].isalpha() and value.replace("-", "").replace(".", "").isalnum()
    reserved = value.lower() in {"true", "false", "yes", "no", "on", "off", "null", "y", "n"}
    return value if plain and not reserved else json.dumps(value)


def _people(run: Run) -> str:
    """The actors of each split, and what was done with them."""
    refit = bool(run.settings.get("refit")) and run.selected_on == "validation"
    last = run.keeps_last
    chose = "chose the temperature" if last else "chose the epoch"
    parts = {"trained on": run.train_actors}
    if run.validation_actors:
        parts[chose + (", then trained on too" if refit else "")] = run.validation_actors
    parts["chose the epoch and tested on" if run.optimistic and not last else "tested on"] = run.test_actors
    lines = [
        {"part": part, "actors": str(len(actors)), "which": ", ".join(map(str, actors)) or "none"}
        for part, actors in parts.items()
    ]
    return Table("", lines, texts=3).markdown()


def _figures(row: Row) -> str:
    """The figures of this run's own fold."""
    figures, accuracy, ece = row.fold_figures[0], row.spreads["accuracy"], row.calibration.ece
    lines = {
        "accuracy %": percent(figures["accuracy"]),
        "accuracy %, 95 % interval by actor": limits(accuracy) if accuracy.ci95 else f"{NOTHING} ({TOO_FEW})",
        "unweighted average recall %": percent(figures["uar"]),
        "macro F1 %": percent(figures["macro_f1"]),
        "expected calibration error %, raw": percent(ece["raw"].mean),
    }
    if "tempered" in ece:
        name = f"expected calibration error %, temperature {row.calibration.temperatures[0]:.2f}"
        lines[name] = percent(ece["tempered"].mean)
    return Table("", [{"figure": name, "value": value} for name, value in lines.items()]).markdown()


def _cross_validation(run: Run, rows: Sequence[Row]) -> str:
    """The rows of the same model and protocol, with speakers standardised or not; empty where none is."""
    plain = run.protocol.removesuffix(SUFFIX)
    lines: list[Line] = [
        {
            "protocol": protocol_of(each),
            "seeds": ", ".join(map(str, each.seeds)),
            "folds": each.progress,
            "accuracy %": figure(each.spreads["accuracy"]),
            "95 % by actor": limits(each.spreads["accuracy"]),
            "UAR %": figure(each.spreads["uar"]),
            **{f"ECE %, {kind}": figure(each.calibration.ece.get(kind)) for kind in ("raw", "tempered")},
        }
        for each in rows
        if each.model == run.model and each.protocol in (plain, plain + SUFFIX)
    ]
    return Table("", lines, texts=3).markdown() if lines else ""
