"""A PyTorch model as `predict` needs it: prepared clips in, calibrated probabilities out."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

import cfnsr
from cfnsr.data.augment import normalise
from cfnsr.emotions import CREMAD, RAVDESS, LabelSet
from cfnsr.errors import InputError
from cfnsr.features.base import FEATURES, Look
from cfnsr.features.preparation import Preparation
from cfnsr.features.spec import ModelSpec
from cfnsr.inference.recogniser import TorchRecogniser, as_recogniser

PREPARATION = Preparation(modalities=("video", "audio", "log_mel", "openface"), frames=8, size=24, keep=0.5)


def create(name: str = "cfn_sr", temperature: float = 1.0, **settings: Any) -> Any:
    """A small model that has met nothing, but in which all it is given matters."""
    torch.manual_seed(0)
    sizes = {"classes": 6, "mfcc_steps": PREPARATION.mfcc_steps, "width": 1 / 16}
    config = ModelSpec(
        name,
        sizes,
        CREMAD,
        frames=4,
        size=16,
        preparation=PREPARATION,
        temperature=temperature,
        **settings,
    )
    model = cfnsr.create_model(name, **sizes)
    with torch.no_grad():
        for _ in range(20):  # so that each part of the model answers at the scale it has after training
            model(torch.randn(8, 3, 4, 16, 16), 60 * torch.randn(8, 13, PREPARATION.mfcc_steps))
    model.config = config
    return model.eval()


def clips(count: int) -> list[dict[str, np.ndarray]]:
    dice = np.random.default_rng(0)
    return [
        {
            "video": dice.integers(0, 255, (8, 24, 24, 3), np.uint8),
            "audio": dice.normal(0, 30, (13, PREPARATION.mfcc_steps)).astype(np.float32),
        }
        for _ in range(count)
    ]


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_probabilities_are_the_models_tempered(temperature: float) -> None:
    model = create(temperature=temperature)
    given = clips(5)
    found = as_recogniser(model).probabilities(given)
    assert found.shape == (5, 6) and found.dtype == np.float64
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-6)
    for clip, row in zip(given, found, strict=True):
        video = normalise(torch.from_numpy(FEATURES["video"].to_model(clip, Look(4, 16)).copy())[None])
        with torch.no_grad():
            log_probabilities = model(video, torch.from_numpy(clip["audio"])[None])[0].double().numpy()
        powers = np.exp(log_probabilities) ** (1 / temperature)
        np.testing.assert_allclose(row, powers / powers.sum(), atol=1e-5)
    assert np.ptp(found, axis=0).max() > 0.01, "clips differ"
    alone = np.concatenate([as_recogniser(model).probabilities([clip]) for clip in given])
    np.testing.assert_allclose(found, alone, atol=1e-5)


@pytest.mark.parametrize("name", ["video", "audio"])
def test_a_model_of_one_modality_is_given_that_alone(name: str) -> None:
    recogniser = as_recogniser(create(name))
    given = clips(2)
    assert recogniser.reads == {name: name} and recogniser.preparation.modalities == (name,)
    found = recogniser.probabilities([{name: clip[name]} for clip in given])
    np.testing.assert_array_equal(found, recogniser.probabilities(given))


def test_attributes_of_a_recogniser() -> None:
    recogniser = TorchRecogniser(create())
    assert (recogniser.name, recogniser.labels) == ("cfn_sr", CREMAD)
    assert recogniser.preparation == replace(PREPARATION, modalities=("video", "audio")), "and nothing else"
    assert not recogniser.normalised and not recogniser.tolerant and not recogniser.handles_missing
    assert TorchRecogniser(create(modality_dropout=0.2)).handles_missing
    assert TorchRecogniser(create(normalised=True)).normalised
    fresh = TorchRecogniser(cfnsr.create_model("audio"))
    assert fresh.labels == RAVDESS and fresh.preparation == Preparation(modalities=("audio",))


def test_the_mode_of_the_model_is_left_as_it_was() -> None:
    """And what is recognised is the same in both; an error changes nothing either."""
    model = create()
    recogniser = as_recogniser(model)
    given = clips(2)
    expected = recogniser.probabilities(given)
    assert not model.training
    model.train()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    np.testing.assert_array_equal(recogniser.probabilities(given), expected)
    assert all(each.training for each in model.modules())
    with pytest.raises(InputError):
        recogniser.probabilities([{**given[0], "audio": np.zeros((13, 3), np.float32)[:5]}])
    assert model.training
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, state[name], rtol=0, atol=0)


def test_a_configuration_need_not_name_what_is_as_usual() -> None:
    """A model of faces and speech whose config.json says no more than the number of classes."""
    model = cfnsr.create_model("multiplication+expression+speech", classes=2)
    labels = LabelSet("two", ("calm", "angry"))
    preparation = Preparation(
        modalities=("expression", "speech"), expression_sha256="0" * 64, speech_sha256="0" * 64
    )
    model.config = ModelSpec(  # type: ignore[assignment]
        "multiplication+expression+speech", {"classes": 2}, labels, preparation=preparation
    )
    recogniser = TorchRecogniser(model.eval())
    nothing = [FEATURES[name].absent(preparation, recogniser.settings) for name in recogniser.reads.values()]
    assert recogniser.probabilities([nothing[0] | nothing[1]]).shape == (1, 2)
