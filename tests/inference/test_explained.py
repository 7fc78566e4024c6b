"""A moment of a recording explained: the answer that is looked into is the one that `predict` gives there."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import cfnsr
from cfnsr.errors import InputError
from cfnsr.features.preparation import Preparation
from cfnsr.features.spec import ModelSpec
from cfnsr.inference.explained import explain_second, explain_window
from cfnsr.inference.recogniser import TorchRecogniser

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


def recogniser(**config: Any) -> TorchRecogniser:
    torch.manual_seed(0)
    settings: dict[str, Any] = {"classes": 8, "width": 1 / 8, "mfcc_steps": PREPARATION.mfcc_steps}
    model = cfnsr.create_model("cfn_sr", **settings)
    with torch.no_grad():
        for _ in range(8):  # so that what it sees matters as much as what it hears
            steps = 40 * torch.randn(4, 13, PREPARATION.mfcc_steps)
            model(torch.randn(4, 3, 1, 1, 1) + torch.randn(4, 3, 6, 64, 64), steps)
    model.eval()
    model.config = ModelSpec("cfn_sr", settings, preparation=PREPARATION, **config)
    return TorchRecogniser(model)


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
        assert told.heard == (second - 0.5, second + 1), "the first half second is left out"
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
