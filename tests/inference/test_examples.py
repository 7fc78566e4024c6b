"""The clips of a run that its report explains: the surest right answer and the surest wrong one."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from cfnsr.data.store import Header, Store
from cfnsr.emotions import LabelSet
from cfnsr.errors import InputError
from cfnsr.features.preparation import Preparation
from cfnsr.features.spec import ModelSpec
from cfnsr.inference import examples as module
from cfnsr.inference.examples import examples
from cfnsr.inference.explain import explain
from cfnsr.models.zoo import create_model
from cfnsr.training.checkpoint import load_model, save_weights
from cfnsr.training.predictions import Predictions

LABELS = LabelSet("three", ("calm", "happy", "angry"))
PREPARATION = Preparation(frames=8, size=64, keep=0.7)
# Label and probabilities: right, surest right, surest wrong, wrong.
SAID = {
    "a": (0, (0.5, 0.3, 0.2)),
    "b": (1, (0.1, 0.8, 0.1)),
    "c": (2, (0.9, 0.05, 0.05)),
    "d": (0, (0.2, 0.2, 0.6)),
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    made = Store.create(tmp_path_factory.mktemp("store"), "made-up", LABELS, PREPARATION.as_json())
    for number, name in enumerate(SAID):
        rng = np.random.default_rng(number)
        tensors = {
            "video": rng.integers(0, 256, (8, 64, 64, 3), dtype=np.uint8),
            "audio": rng.normal(0, 9, (13, PREPARATION.mfcc_steps)).astype(np.float32),
            "waveform": rng.integers(-9000, 9000, PREPARATION.samples).astype(np.int16),
            "times": np.linspace(0, 1, 8),
        }
        made.write(Header(name, "calm", 7, None, {}, {}, PREPARATION.as_json()), tensors)
    return made


def run_of(folder: Path, model: str = "cfn_sr", said: tuple[str, ...] = tuple(SAID), **config: Any) -> Any:
    """What `examples` reads of a run, with an untrained checkpoint."""
    torch.manual_seed(0)
    settings = {"classes": 3, "width": 1 / 8, "mfcc_steps": PREPARATION.mfcc_steps}
    save_weights(create_model(model, **settings), folder)
    ModelSpec(model, settings, preparation=PREPARATION, labels=LABELS, **config).write(folder)
    labels, rows = zip(*(SAID[name] for name in said), strict=True)
    test = Predictions(said, (7,) * len(said), np.array(labels), np.log(np.array(rows)))
    return SimpleNamespace(folder=folder, labels=LABELS, test=test)


def test_the_surest_answers_are_explained(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[dict[str, Any]] = []
    draw = module.sheet

    def sheet(explanation: Any, **given: Any) -> bytes:
        shown.append({"explanation": explanation, **given})
        return draw(explanation, **given)

    monkeypatch.setattr(module, "sheet", sheet)
    run = run_of(tmp_path)
    right, wrong = examples(run, store)
    assert right.caption.startswith(
        "The clip answered rightly that it is surest of: b of actor 7, acted happy"
    )
    assert wrong.caption.startswith(
        "The clip answered wrongly that it is surest of: c of actor 7, acted angry"
    )
    model = load_model(tmp_path)
    for name, each, example in zip("bc", shown, (right, wrong), strict=True):
        tensors, expected = store.load(name), explain(model, store.load(name))
        np.testing.assert_array_equal(each["frames"], tensors["video"])
        np.testing.assert_array_equal(each["sound"], tensors["waveform"])
        assert each["span"] == pytest.approx((0.5, 1.2)) and each["name"] == name
        np.testing.assert_array_equal(each["explanation"].places, expected.places)
        assert example.picture.startswith(b"\x89PNG") and example.caption.endswith(expected.emotion)


@pytest.mark.parametrize(("model", "shown"), [("video", "frames"), ("audio", "sound")])
def test_what_a_model_does_not_read_is_not_shown(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch, model: str, shown: str
) -> None:
    given: dict[str, Any] = {}
    monkeypatch.setattr(module, "sheet", lambda _, **settings: given.update(settings) or b"png")
    examples(run_of(tmp_path, model), store)
    other = {"frames": "sound", "sound": "frames"}[shown]
    assert given[shown] is not None and given[other] is None
    assert (given["span"] is None) == (shown == "frames")


def test_a_run_that_is_never_wrong_has_one(tmp_path: Path, store: Store) -> None:
    (only,) = examples(run_of(tmp_path, said=("a", "b")), store)
    assert "answered rightly" in only.caption


def test_what_cannot_be_explained(tmp_path: Path, store: Store) -> None:
    run = run_of(tmp_path)
    run.test = Predictions(("gone",), (7,), np.array([0]), run.test.log_probabilities[:1])
    with pytest.raises(InputError, match="gone"):
        examples(run, store)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"model\.safetensors"):
        examples(run, store)
    with pytest.raises(InputError, match="expected runs without --speaker-normalisation"):
        examples(run_of(tmp_path, normalised=True), store)
