"""The model card: what it tells of a checkpoint, and what it cannot be made to say."""

import ast
import hashlib
import re
from collections.abc import Callable
from dataclasses import replace
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from cfnsr.emotions import RAVDESS, LabelSet
from cfnsr.errors import InputError
from cfnsr.evaluation.card import TAGS, model_card, write_card
from cfnsr.evaluation.metrics import TOO_FEW
from cfnsr.evaluation.rows import summarise
from cfnsr.evaluation.runs import read_runs
from cfnsr.features.preparation import Preparation
from cfnsr.features.spec import ModelSpec
from cfnsr.inference.predict import predict
from cfnsr.training.checkpoint import read_spec
from cfnsr.training.run import Run

Fabricate = Callable[..., Path]
Card = Callable[..., str]
MODEL = "cfn_sr+openface+speech"
PREPARATION = Preparation(
    modalities=("openface", "speech"), speech_encoder="whisper-tiny-en-encoder", speech_sha256="5e" * 32
)
SMALL: dict[str, Any] = {"takes": 16, "epochs": 3, "preset": "features"}


def checkpoint(folder: Path, model: str = MODEL, labels: LabelSet = RAVDESS) -> Path:
    """Put a config and something like weights beside a run."""
    settings = {"classes": len(labels)}
    ModelSpec(model, settings, labels, preparation=PREPARATION, temperature=1.2).write(folder)
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


def values(text: str) -> dict[str, str]:
    """The two-column tables of a card."""
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    return {line[0]: line[1] for line in lines if len(line) == 2}


def head(text: str) -> dict[str, Any]:
    """The YAML head."""
    found: dict[str, Any] = yaml.safe_load(text.split("---\n", 2)[1])
    return found


@pytest.fixture
def card(tmp_path: Path, fabricate: Fabricate) -> Card:
    """Makes the card of a made-up run."""

    def make(model: str = MODEL, protocol: str = "nested", **about: Any) -> str:
        return model_card(checkpoint(fabricate(tmp_path, model, protocol, **SMALL | about), model))

    return make


def test_a_card_stands_beside_its_checkpoint(tmp_path: Path, fabricate: Fabricate) -> None:
    folder = checkpoint(fabricate(tmp_path, MODEL, fold=2, seed=4, **SMALL))
    path = write_card(folder)
    text = path.read_text(encoding="utf-8")
    assert path == folder / "README.md" and text == model_card(folder)
    assert head(text) == {
        "license": "cc-by-nc-sa-4.0",
        "library_name": "cfnsr",
        "tags": [*TAGS, "ravdess", "openface", "speech"],
        "metrics": ["accuracy", "recall"],
    }
    assert hashlib.sha256(b"weights").hexdigest() in text and "7 bytes" in text
    assert "CC BY-NC-SA 4.0" in text and "10.5281/zenodo.1188976" in text and "2111.02172" in text
    assert "whisper-tiny-en-encoder" in text and "5e" * 32 in text and "look it up by this name" in text
    for what in ("2024/1689", "article 5(1)(f)", "workplace", "education", "Annex III", "article 50(3)"):
        assert what in text
    assert "Fold 2 of 6, nested protocol, seed 4" in text
    assert "| tested on | 4 | 5, 6, 7, 8 |" in text and "| chose the epoch | 4 | 9, 10, 11, 12 |" in text
    assert 'cfnsr.from_pretrained("FOLDER")' in text and str(tmp_path) not in text


def test_its_figures_are_those_of_its_own_fold(tmp_path: Path, fabricate: Fabricate) -> None:
    folder = checkpoint(fabricate(tmp_path, MODEL, **SMALL))
    run, text = Run.read(folder), model_card(folder)
    found = values(text)
    right = run.test.log_probabilities.argmax(axis=1) == run.test.labels
    assert found["accuracy %"] == f"{100 * right.mean():.1f}"
    recalls = [right[run.test.labels == emotion].mean() for emotion in range(8)]
    assert found["unweighted average recall %"] == f"{100 * np.mean(recalls):.1f}"
    confidence = np.exp(run.test.log_probabilities).max(axis=1)
    bins = np.ceil(confidence * 15)
    gaps = [abs(right[bins == each].sum() - confidence[bins == each].sum()) for each in range(16)]
    assert found["expected calibration error %, raw"] == f"{100 * sum(gaps) / len(right):.1f}"
    assert any(name.startswith("expected calibration error %, temperature ") for name in found)
    assert found["accuracy %, 95 % interval by actor"] == f"– ({TOO_FEW})" and text.count(TOO_FEW) == 1
    assert "The whole cross-validation" not in text
    for actor in (1, 2, 3, 4):
        of = np.array(run.test.actors) == actor
        assert f"{actor}: {100 * right[of].mean():.1f}" in text


def test_the_cross_validation_is_told_apart(tmp_path: Path, fabricate_all: Fabricate) -> None:
    fabricate_all(tmp_path, (MODEL, "audio+speech"), ("nested", "nested_normalised"), **SMALL)
    rows = summarise(read_runs(tmp_path))
    text = model_card(checkpoint(tmp_path / "nested" / MODEL / "seed_0" / "fold_3"), rows)
    own, whole = text.split("**The whole cross-validation**")
    assert "**These weights**, on the 64 test clips of 4 actors that they never saw:" in own
    for row in rows:
        if row.model == MODEL:
            assert f"| {row.protocol_label} | 0 | 6 of 6 folds | " in whole
            assert f"{100 * row.estimates['accuracy'].mean:.1f} ± " in whole
    assert len([line for line in whole.splitlines() if "6 of 6 folds" in line]) == 2


def test_what_a_figure_needs_is_told(tmp_path: Path, fabricate: Fabricate) -> None:
    folder = checkpoint(fabricate(tmp_path, MODEL, "nested_normalised", settings={"refit": True}, **SMALL))
    text = model_card(folder)
    assert "**speakers standardised: transductive, needs all emotions of each person in balance.**" in text
    assert "on a single take its answers mean little" in text and "then trained on too | 4 |" in text
    config = replace(read_spec(folder), normalised=True)
    config.write(folder)
    text = model_card(folder)
    assert "`predict` refuses it for a single file" in text and '`"normalised": true`' in text
    assert code_of(text)[-1].startswith("model = ") and "mean little" not in text  # what would be refused


def code_of(text: str) -> list[str]:
    """The lines of a card's Python."""
    return text.split("```python\n")[1].split("```")[0].splitlines()


@pytest.mark.parametrize(
    ("model", "wanted"),
    [
        (MODEL, {"openface", "speech_encoder"}),
        ("audio+speech", {"speech_encoder"}),
        ("video+openface", {"openface"}),
        ("cfn_sr", set()),
    ],
)
def test_its_code_gives_predict_what_the_model_needs(card: Card, model: str, wanted: set[str]) -> None:
    text = card(model, params=1000, trained_params=600 if wanted else 1000)
    calls = [node for node in ast.walk(ast.parse("\n".join(code_of(text)))) if isinstance(node, ast.Call)]
    (call,) = [node for node in calls if ast.unparse(node.func) == "cfnsr.predict"]
    given = {keyword.arg for keyword in call.keywords}
    assert given == wanted and given <= set(signature(predict).parameters)
    speech = "speech_encoder" in wanted
    assert ("whisper" in text) is speech and ("OpenFace" in text) is ("openface" in wanted)
    assert model != "cfn_sr" or "It reads pixels and MFCC." in text
    cited = f"speech encoder whisper-tiny-en-encoder (SHA-256 `{'5e' * 32}`; licence: see its own card)."
    assert text.split("## Data")[0].count(cited) == speech == text.split("## Citation")[1].count(cited)
    assert ("discriminants that are solved in closed form" in text) is bool(wanted)
    assert ("1,000 parameters, 600 of them trained (" in text) is bool(wanted)
    assert "1,000 parameters" in text


def test_the_last_epoch_was_chosen_by_nobody(card: Card) -> None:
    text = card(epoch=3, settings={"keep": "last", "refit": True})
    assert "epoch 3 of 3, the last epoch; " in text and "chosen on" not in text
    assert "| chose the temperature, then trained on too | 4 | 5, 6, 7, 8 |" in text
    assert "epoch 2 of 3, chosen on: validation; " in card(fold=2, epoch=2)


@pytest.mark.parametrize(
    ("keep", "tested"), [("last", "tested on"), ("best", "chose the epoch and tested on")]
)
def test_nothing_is_claimed_of_validation_actors_that_are_not_there(
    card: Card, keep: str, tested: str
) -> None:
    text = card(protocol="paper", settings={"keep": keep, "refit": True})
    people = text.split("## Who was trained on")[1].split("## Figures")[0]
    assert people.count("\n| ") == 4 and f"| {tested} | 4 | 1, 2, 3, 4 |" in people
    assert "temperature" not in people and "trained on too" not in people and "none" not in people


@pytest.mark.parametrize(
    ("settings", "frozen"),
    [
        ({"frozen_encoders": True}, True),
        ({"frozen_encoders": True, "pretrain": False}, False),
        ({"frozen_encoders": False}, False),
    ],
)
def test_frozen_encoders_are_told(card: Card, settings: dict[str, Any], frozen: bool) -> None:
    text = card(settings=settings)
    assert "talk to each other between the stages of their encoders" in text
    assert ("what the encoders know was learnt apart and stays as it was" in text) is frozen


def test_one_actor_is_no_plural(card: Card) -> None:
    assert "on the 16 test clips of 1 actor that they never saw:" in card(protocol="leave_one_actor_out")


@pytest.mark.parametrize(
    ("corpus", "licence"), [("RAVDESS", "cc-by-nc-sa-4.0"), ("cremad", "odbl"), ("synthetic", "other")]
)
def test_the_licence_is_that_of_the_corpus(card: Card, corpus: str, licence: str) -> None:
    text = card(corpus={"name": corpus, "clips": 9})
    assert head(text)["license"] == licence
    assert ("does not know the licence of synthetic" in text) is (licence == "other")
    assert ("PLoS ONE" in text) is (corpus == "RAVDESS")


def test_no_name_breaks_out_of_the_card(tmp_path: Path, fabricate: Fabricate) -> None:
    evil = 'x"\nlicense: mit\n---\n<script>[a](b)|`'
    labels = LabelSet("<b>", ("<i>calm", "a|b"))
    folder = fabricate(
        tmp_path,
        MODEL,
        labels=labels,
        corpus={"name": evil, "clips": 9, "sha256": "<q>"},
        settings={"<u>": "a|b"},
        versions={"cfnsr": "<v>"},
        **SMALL | {"preset": evil},
    )
    text = model_card(checkpoint(folder, labels=labels))
    assert head(text)["license"] == "other" and evil in head(text)["tags"]
    body = text.split("---\n", 2)[2]
    assert not re.search(r"<[a-z]", body) and not re.search(r"(?<!\\)\]\(", body) and "\n---\n" not in body
    assert r"a\|b" in body


def test_a_card_needs_a_run_and_its_weights(tmp_path: Path, fabricate: Fabricate) -> None:
    folder = fabricate(tmp_path, MODEL, **SMALL)
    with pytest.raises(InputError, match=r"config\.json is missing"):
        write_card(folder)
    checkpoint(folder, "cfn_sr_features")
    with pytest.raises(
        InputError, match=r"a run of cfn_sr\+openface\+speech and a checkpoint of cfn_sr_features"
    ):
        write_card(folder)
    checkpoint(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"model\.safetensors is missing"):
        write_card(folder)
    assert not (folder / "README.md").exists()
    (folder / "run.json").unlink()
    with pytest.raises(InputError):
        write_card(checkpoint(folder))
