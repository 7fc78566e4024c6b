"""Explained: moments of a recording as `predict` answers there, and the clips of a run in a report."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import cfnsr
from cfnsr.data.store import Header, Store
from cfnsr.emotions import LabelSet
from cfnsr.errors import InputError
from cfnsr.features.preparation import Preparation
from cfnsr.features.spec import ModelSpec
from cfnsr.inference import explained as module
from cfnsr.inference.explain import explain
from cfnsr.inference.explained import examples, explain_second, explain_window
from cfnsr.inference.recogniser import TorchRecogniser
from cfnsr.training.checkpoint import load_model, save_weights
from cfnsr.training.predictions import Predictions

Film = Callable[..., Path]

RATE = 8_000
PREPARATION = Preparation(frames=8, size=64, keep=1.5)
SECONDS = {1: "heard and seen", 5: "heard", 7: None, 9: "seen"}  # middles of windows


@pytest.fixture
def dark(film: Film) -> Path:
    """12 s: nobody to be seen from 4 s to 8 s, nothing to be heard from 6.2 s to 10.2 s."""
    sound = np.random.default_rng(0).uniform(-0.3, 0.3, 12 * RATE)
    sound[round(6.2 * RATE) : round(10.2 * RATE)] = 0

    def faces(time: float) -> list[Any]:
        return [] if 4 <= time < 8 else [("red", 10 + round(2 * time), 8, 24)]

    return film(12.0, faces=faces, sound=[(0.0, sound)])


SETTINGS: dict[str, Any] = {"classes": 8, "width": 1 / 8, "mfcc_steps": PREPARATION.mfcc_steps}


@cache
def model() -> Any:
    torch.manual_seed(0)
    made = cfnsr.create_model("cfn_sr", **SETTINGS)
    with torch.no_grad():
        for _ in range(8):  # so that what it sees matters as much as what it hears
            steps = 40 * torch.randn(4, 13, PREPARATION.mfcc_steps)
            made(torch.randn(4, 3, 1, 1, 1) + torch.randn(4, 3, 6, 64, 64), steps)
    return made.eval()


def recogniser(**config: Any) -> TorchRecogniser:
    model().config = ModelSpec("cfn_sr", SETTINGS, preparation=PREPARATION, **config)
    return TorchRecogniser(model())


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_a_moment_is_explained_as_it_is_predicted(dark: Path, spots: Any, dropout: float) -> None:
    """By what is there, if the model was trained to do without the other; else only where both are."""
    model = recogniser(modality_dropout=dropout)
    result = cfnsr.predict(model, dark, window=2.0)
    windows = {round(window.start) + 1: number for number, window in enumerate(result.timeline)}
    for second, there in SECONDS.items():
        window = result.timeline[windows[second]]
        if window.probabilities is None:
            assert there is None or dropout == 0
            with pytest.raises(InputError, match=r"has no (face|speech|face and speech) from"):
                explain_second(model, dark, second, window=2.0)
            with pytest.raises(InputError, match=rf"no answer from {second - 1}.0 to {second + 1}.0 s"):
                explain_window(model, dark, result, windows[second], window=2.0)
            continue
        assert there is not None
        told = explain_second(model, dark, second, window=2.0)
        again = explain_window(model, dark, result, windows[second], window=2.0)
        assert told.span == again.span == (second - 1, second + 1)
        assert told.sound_span == (second - 0.5, second + 1), "the first half second is left out"
        for each in (told, again):
            expected = list(window.probabilities.values())
            np.testing.assert_allclose(each.explanation.probabilities, expected, atol=1e-5)


def test_seconds_and_windows_that_are_not_there(dark: Path, spots: Any) -> None:
    model = recogniser()
    for second in (-0.1, 12.5, float("nan")):
        with pytest.raises(InputError, match=r"expected 0 to 12.0"):
            explain_second(model, dark, second)
    result = cfnsr.predict(model, dark, window=2.0)
    for number in (-1, 11):
        with pytest.raises(InputError, match=rf"no window {number}: expected one from 0 to 10"):
            explain_window(model, dark, result, number, window=2.0)


def test_models_that_cannot_be_explained(dark: Path, spots: Any) -> None:
    with pytest.raises(InputError, match="standardised"):
        explain_second(recogniser(normalised=True), dark)


LABELS = LabelSet("three", ("calm", "happy", "angry"))
KEPT = Preparation(frames=8, size=64, keep=0.7)
# Label and probabilities: right, surest right, surest wrong, wrong.
ANSWERS = {
    "a": (0, (0.5, 0.3, 0.2)),
    "b": (1, (0.1, 0.8, 0.1)),
    "c": (2, (0.9, 0.05, 0.05)),
    "d": (0, (0.2, 0.2, 0.6)),
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    made = Store.create(tmp_path_factory.mktemp("store"), "made-up", LABELS, KEPT.as_json())
    for number, name in enumerate(ANSWERS):
        rng = np.random.default_rng(number)
        tensors = {
            "video": rng.integers(0, 256, (8, 64, 64, 3), dtype=np.uint8),
            "audio": rng.normal(0, 9, (13, KEPT.mfcc_steps)).astype(np.float32),
            "waveform": rng.integers(-9000, 9000, KEPT.samples).astype(np.int16),
            "times": np.linspace(0, 1, 8),
        }
        made.write(Header(name, "calm", 7, None, {}, {}, KEPT.as_json()), tensors)
    return made


def run_of(
    folder: Path, model: str = "cfn_sr", names: tuple[str, ...] = tuple(ANSWERS), **config: Any
) -> Any:
    """What `examples` reads of a run, with an untrained checkpoint."""
    torch.manual_seed(0)
    settings = {"classes": 3, "width": 1 / 8, "mfcc_steps": KEPT.mfcc_steps}
    save_weights(cfnsr.create_model(model, **settings), folder)
    ModelSpec(model, settings, preparation=KEPT, labels=LABELS, **config).write(folder)
    labels, rows = zip(*(ANSWERS[name] for name in names), strict=True)
    test = Predictions(names, (7,) * len(names), np.array(labels), np.log(np.array(rows)))
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
    (only,) = examples(run_of(tmp_path, names=("a", "b")), store)
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
