"""The model card of a checkpoint: README.md beside its config.json and model.safetensors.

In the form of the Hugging Face hub (a YAML head, then Markdown). Source: Mitchell et al., "Model Cards for
Model Reporting", FAT* 2019.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cfnsr import __version__
from cfnsr.corpus.download import CITATIONS, LICENCE
from cfnsr.data.clip import Preparation
from cfnsr.data.folds import SUFFIX
from cfnsr.errors import InputError
from cfnsr.evaluation.metrics import TOO_FEW
from cfnsr.evaluation.names import called, encoders_of, entry_of
from cfnsr.evaluation.runs import Run, read_run
from cfnsr.evaluation.sections import protocol_of
from cfnsr.evaluation.summary import Row, summarise
from cfnsr.evaluation.tables import NOTHING, Line, Table, figure, limits, percent, safe
from cfnsr.files import write_text

if TYPE_CHECKING:
    from cfnsr.training.checkpoint import Config

CARD, WEIGHTS = "README.md", "model.safetensors"
# Corpus -> the hub's name of its licence, what it says, and whom to cite.
LICENCES: Mapping[str, tuple[str, str, tuple[str, ...]]] = {
    "ravdess": ("cc-by-nc-sa-4.0", LICENCE, tuple(CITATIONS.values())),
    "cremad": (
        "odbl",
        "CREMA-D is made available under the Open Database License (http://opendatacommons.org/licenses/odbl/).",
        (
            "Cao H, Cooper DG, Keutmann MK, Gur RC, Nenkova A, Verma R (2014). CREMA-D: Crowd-sourced "
            "Emotional Multimodal Actors Dataset. IEEE Transactions on Affective Computing 5(4): 377-390.",
        ),
    ),
}
PAPER = (
    "Fu Z, Liu F, Wang H, Qi J, Fu X, Zhou A, Li Z (2021). A cross-modal fusion network based on "
    "self-attention and residual structure for multimodal emotion recognition. arXiv 2111.02172."
)
FUSIONS = {
    "none": "One modality alone.",
    "late": "Each modality is classified by itself, and the two classifications are combined.",
    "early": "The pooled features of both modalities are joined before one classifier.",
    "model": "The two modalities talk to each other between the stages of their encoders.",
}
FROZEN = (
    "The two modalities talk to each other between the stages of their encoders; what the encoders know was "
    "learnt apart and stays as it was."
)
LIMITS = """\
- It tells which emotion an **actor was asked to show**, not what a person feels. Faces and voices are no
  reliable sign of a feeling: people differ, and so do cultures and situations.
- The actors it was trained on are few, and act (those of RAVDESS two sentences of North American English, in
  a studio). Other people, languages, microphones, codecs, light and camera angles were not tested, and on
  another corpus such models have done far worse.
- Single actors are read much better or worse than the mean, as the accuracies above show. No group of
  persons (age, skin, speech or facial difference) was tested apart.
- The interval by actor, not the third digit, says how far a figure can be trusted.
- Look at the probabilities, and let it abstain: `cfnsr report` tells the accuracy of the answered clips at
  every threshold."""
ACT = """\
This is no legal advice. Under Regulation (EU) 2024/1689 (the AI Act) a system that infers emotions of natural
persons from their biometric data, such as those of face and voice, is an *emotion recognition system*
(article 3(39)).

- **Forbidden** (article 5(1)(f)): placing it on the market, putting it into service for this purpose or using
  it to infer emotions of persons **at the workplace or in education institutions**, except for medical or
  safety reasons. Recruitment, the staff of call centres, classrooms and examinations are among these.
- **High-risk** as a rule (article 6(2) with Annex III, point 1(c)): emotion recognition in all other areas,
  as far as law allows it at all. Its provider must among other things keep a risk management system, data
  governance, technical documentation, logs, human oversight and tested accuracy (articles 8 to 17), have its
  conformity assessed and register it (articles 43, 49). These weights meet none of that: they are for
  research.
- **Transparency** (article 50(3)): whoever deploys it must tell the persons exposed that it is at work, and
  process their data under the General Data Protection Regulation (2016/679), for which biometric data can be
  a special category (its article 9).

Do not use it to judge people anywhere: not in hiring, policing, border control, insurance or credit, nor to
infer anything about a person who did not agree."""


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
            protocol, and that with speakers standardised, are told beside the run's own fold.

    Raises:
        InputError: the folder is no checkpoint, or none of a finished run.
    """
    from cfnsr.training.checkpoint import Config

    config = Config.read(folder)
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
    parts = [
        _head(run),
        f"# {safe(run.model)}",
        _about(run, config, weights),
        "## How to load it",
        _loading(run, config),
        "## Data",
        _data(run, config.preparation),
        "## Who was trained on",
        _people(run),
        "## Figures",
        *_figures(run, row, rows),
        "## Limits of use",
        LIMITS,
        "## Law",
        ACT,
        "## Training",
        _training(run),
        "## Citation",
        _citations(run, config.preparation),
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


def _head(run: Run) -> str:
    """The YAML head; each value is written as JSON, which is YAML, so that no name can break out of it."""
    licence = LICENCES.get(run.corpus.lower())
    modalities = [each for each in encoders_of(run.model) if each]
    head: dict[str, Any] = {
        "license": licence[0] if licence else "other",
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
    return "\n".join(["---", *lines, "---"])


def _scalar(value: str) -> str:
    """A YAML scalar: plain where it can be nothing else, quoted otherwise.

    >>> _scalar("cc-by-nc-sa-4.0"), _scalar('a: "b"')
    ('cc-by-nc-sa-4.0', '"a: \\\\"b\\\\""')
    """
    plain = value.isascii() and value[:1].isalpha() and value.replace("-", "").replace(".", "").isalnum()
    reserved = value.lower() in {"true", "false", "yes", "no", "on", "off", "null", "y", "n"}
    return value if plain and not reserved else json.dumps(value)


def _about(run: Run, config: "Config", weights: Path) -> str:
    found = entry_of(run.model)
    content = weights.read_bytes()
    reads = called(encoders_of(run.model))
    fusion = FUSIONS.get(found.fusion, "") if found is not None else ""
    if fusion == FUSIONS["model"] and _keeps_its_encoders(run):
        fusion = FROZEN
    trained = (
        f", {run.trained_params:,} of them trained (the others are a pretrained speech encoder's, and "
        "those of discriminants that are solved in closed form)"
        if run.trained_params < run.params
        else ""
    )
    emotions = ", ".join(run.labels.emotions)
    return (
        f"Recognises one of {len(run.labels)} acted emotions ({safe(emotions)}) in a short take of one "
        f"person. It reads {safe(reads)}. {fusion} A model of cfnsr's zoo, which rebuilds CFN-SR (arXiv "
        f"2111.02172) and the models it is compared with. {run.params:,} parameters{trained}; "
        f"the weights are {len(content):,} bytes, SHA-256 `{hashlib.sha256(content).hexdigest()}`."
    )


def _keeps_its_encoders(run: Run) -> bool:
    """Whether the encoders it started from were frozen."""
    return bool(run.settings.get("frozen_encoders")) and run.settings.get("pretrain") is not False


def _loading(run: Run, config: "Config") -> str:
    load = 'model = cfnsr.from_pretrained("FOLDER")  # the folder of this file, or its name on the hub'
    lines = ["import cfnsr", "", load]
    if not config.normalised:
        lines += [*_predicting(run), "print(result.emotion, result.probabilities)"]
    said = [
        f"With cfnsr {safe(run.versions.get('cfnsr', __version__))} or one that reads its checkpoints:",
        "```python\n" + "\n".join(lines) + "\n```",
    ]
    encoder = _speech_encoder(run, config.preparation)
    if encoder:
        said.append(f"It hears by the {encoder}.")
    if run.protocol.endswith(SUFFIX) or config.normalised:
        said.append(
            "It was trained on features standardised per speaker, so it needs takes of all emotions of the "
            "same person, in balance, standardised in the same way; "
            + (
                'config.json says `"normalised": true`, and `predict` refuses it for a single file.'
                if config.normalised
                else "on a single take its answers mean little."
            )
        )
    return "\n\n".join(said)


def _predicting(run: Run) -> list[str]:
    """The lines that call `predict` with all that the model's encoders need."""
    needed = []
    if "openface" in encoders_of(run.model):
        needed.append('    openface="take.csv",  # OpenFace\'s CSV of the take')
    if "speech" in encoders_of(run.model):
        needed.append('    speech_encoder="ENCODER",  # its folder, or its name on the Hugging Face hub')
    if not needed:
        return ['result = cfnsr.predict(model, "take.mp4")']
    return ["result = cfnsr.predict(", "    model,", '    "take.mp4",', *needed, ")"]


def _speech_encoder(run: Run, preparation: Preparation) -> str:
    """The pretrained encoder that a model hears by, by name and hash; empty where it hears by none."""
    if "speech" not in encoders_of(run.model) or not preparation.speech_encoder:
        return ""
    return (
        f"speech encoder {safe(preparation.speech_encoder)} (SHA-256 `{safe(preparation.speech_sha256)}`; "
        "licence: see its own card)"
    )


def _data(run: Run, preparation: Preparation) -> str:
    licence = LICENCES.get(run.corpus.lower())
    said = [
        f"Corpus {safe(run.corpus)}, {run.clips} clips"
        + (f" (fingerprint of their contents `{safe(run.fingerprint[:16])}`)." if run.fingerprint else "."),
        " ".join(licence[1].split()) + " The weights are made from it and are shared under the same licence."
        if licence
        else f"cfnsr does not know the licence of {safe(run.corpus)}: look it up before sharing weights.",
        "The recordings are no part of this folder.",
    ]
    if "openface" in encoders_of(run.model):
        said.append(
            "The action units are OpenFace's (Baltrušaitis et al. 2018); OpenFace has a licence of its own, "
            "for academic and other non-commercial use."
        )
    if "speech" in encoders_of(run.model) and preparation.speech_encoder:
        said.append(
            f"The sound is read by the pretrained speech encoder {safe(preparation.speech_encoder)} (SHA-256 "
            f"`{safe(preparation.speech_sha256)}`). It is not in this folder and has a licence of its own: "
            "look it up by this name and hash, which config.json has too."
        )
    return " ".join(said)


def _people(run: Run) -> str:
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
    table = Table("", lines, texts=3).markdown()
    return f"Fold {run.fold} of {run.folds}, {safe(run.protocol)} protocol, seed {run.seed}.\n\n{table}"


def _figures(run: Run, row: Row, rows: Sequence[Row]) -> list[str]:
    """This run's own fold, then the cross-validation it belongs to."""
    caveat = f" **{safe(run.caveat)}.**" if run.caveat else ""
    found = row.calibration
    figures = row.fold_figures[0]
    accuracy = row.spreads["accuracy"]
    lines = {
        "accuracy %": percent(figures["accuracy"]),
        "accuracy %, 95 % interval by actor": limits(accuracy) if accuracy.ci95 else f"{NOTHING} ({TOO_FEW})",
        "unweighted average recall %": percent(figures["uar"]),
        "macro F1 %": percent(figures["macro_f1"]),
        "expected calibration error %, raw": percent(found.ece["raw"].mean),
    }
    if "tempered" in found.ece:
        name = f"expected calibration error %, temperature {found.temperatures[0]:.2f}"
        lines[name] = percent(found.ece["tempered"].mean)
    single = ", ".join(f"{actor}: {percent(value)}" for actor, value in row.accuracy_of.items())
    parts = [
        f"**These weights**, on the {len(run.test.clips)} test clips of {len(row.actors)} "
        f"actor{'s' if len(row.actors) > 1 else ''}{'' if run.leaky else ' that they never saw'}:{caveat}",
        Table("", [{"figure": name, "value": value} for name, value in lines.items()]).markdown(),
        f"Actor by actor, %: {safe(single)}.",
    ]
    plain = run.protocol.removesuffix(SUFFIX)
    whole: list[Line] = [
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
    if whole:
        parts += [
            "**The whole cross-validation** of this model: the mean over all folds, each with weights of its "
            "own, of which these are one. It says more of strangers of the same kind than one fold does.",
            Table("", whole, texts=3).markdown(),
        ]
    return parts


def _training(run: Run) -> str:
    settings = [{"setting": str(name), "value": str(value)} for name, value in run.settings.items()]
    versions = ", ".join(f"{name} {version}" for name, version in run.versions.items())
    chosen = "the last epoch" if run.keeps_last else f"chosen on: {safe(run.selected_on)}"
    return (
        f"Preset {safe(run.preset)}, epoch {run.epoch} of {run.epochs}, {chosen}; "
        f"{run.seconds:.0f} seconds; {safe(versions)}.\n\n{Table('', settings, texts=2).markdown()}"
    )


def _citations(run: Run, preparation: Preparation) -> str:
    licence = LICENCES.get(run.corpus.lower())
    cited = [PAPER, *(licence[2] if licence else ())]
    if "openface" in encoders_of(run.model):
        cited.append(
            "Baltrušaitis T, Zadeh A, Lim YC, Morency L-P (2018). OpenFace 2.0: Facial Behavior Analysis "
            "Toolkit. IEEE FG 2018."
        )
    encoder = _speech_encoder(run, preparation)
    if encoder:
        cited.append(f"The {encoder}.")
    return "\n".join(f"- {' '.join(each.split())}" for each in cited)
