"""What the inputs make of a clip's arrays, against PyTorch and by hand."""

from typing import cast

import numpy as np
import pytest
import torch
from torch.nn import functional

from cfnsr.data.augment import normalise
from cfnsr.features import FEATURES
from cfnsr.features.base import Look, pool_steps
from cfnsr.features.mel import Mel
from cfnsr.features.preparation import Preparation
from cfnsr.media.decode import spread
from cfnsr.media.mfcc import mfcc

LOOK = Look(8, 64, openface_steps=3, openface_features=4, speech_steps=2)


def test_even_positions() -> None:
    assert spread(30, 30).tolist() == list(range(30))
    assert spread(30, 8).tolist() == [0, 4, 8, 12, 17, 21, 25, 29]
    assert spread(5, 8).tolist() == [0, 1, 1, 2, 2, 3, 3, 4]


@pytest.mark.parametrize(
    ("shape", "frames", "size"),
    [
        ((6, 8, 8), 3, 4),
        ((10, 80, 80), 8, 64),
        ((30, 224, 224), 30, 112),
        ((5, 96, 96), 9, 96),
        ((4, 50, 50), 3, 64),
        ((7, 91, 91), 1, 13),
    ],
)
def test_pictures_are_averaged_areas_of_the_chosen_frames(
    shape: tuple[int, int, int], frames: int, size: int
) -> None:
    video = np.random.default_rng(size).integers(0, 256, (*shape, 3), dtype=np.uint8)
    found = FEATURES["video"].to_model({"video": video}, Look(frames, size))
    assert found.shape == (3, frames, size, size) and found.dtype == np.uint8
    chosen = torch.from_numpy(video[spread(len(video), frames)]).permute(3, 0, 1, 2).float()
    expected = functional.interpolate(chosen, (size, size), mode="area").round().to(torch.uint8)
    np.testing.assert_array_equal(found, expected.numpy())


@pytest.mark.parametrize("length", [1, 2, 3, 7, 100])
@pytest.mark.parametrize("steps", [1, 2, 3, 7, 24])
def test_sequences_are_evened_as_by_pytorch(length: int, steps: int) -> None:
    """To the last bit; but one step alone is another sum there."""
    sequence = np.random.default_rng(length).normal(size=(4, 5, length)).astype(np.float32)
    expected = functional.adaptive_avg_pool1d(torch.from_numpy(sequence), steps).numpy()
    np.testing.assert_allclose(pool_steps(sequence, steps), expected, rtol=0, atol=5e-7 if steps == 1 else 0)


def pool_by_hand(rows: np.ndarray, steps: int) -> np.ndarray:
    """(T, F) to (steps, F): the mean of each part, whose borders are rounded outwards."""
    length = len(rows)
    parts = [(step * length // steps, -(-(step + 1) * length // steps)) for step in range(steps)]
    return np.stack([rows[start:end].mean(axis=0) for start, end in parts])


@pytest.mark.parametrize(("length", "features"), [(1, 4), (7, 4), (7, 9)])
def test_openface_is_its_first_features_at_even_steps(length: int, features: int) -> None:
    track = np.random.default_rng(0).normal(size=(length, features)).astype(np.float32)
    found = FEATURES["openface"].to_model({"openface": track}, LOOK)
    assert found.shape == (4, 3) and found.dtype == np.float32
    np.testing.assert_allclose(found.T, pool_by_hand(track[:, :4], 3), atol=1e-6)


def test_speech_is_every_speed_at_even_steps() -> None:
    rng = np.random.default_rng(0)
    preparation = Preparation(("speech",), speech_sha256="0" * 64, speech_speeds=(0.9, 1.1))
    names = FEATURES["speech"].arrays(preparation)
    assert names == ("speech", "speech_0.9", "speech_1.1")
    lengths = dict(zip(names, (6, 7, 5), strict=True))
    arrays = {name: rng.normal(size=(2, steps, 3)).astype(np.float16) for name, steps in lengths.items()}
    found = FEATURES["speech"].to_model(arrays, LOOK)
    assert found.shape == (3, 2, 2, 3) and found.dtype == np.float16
    for speed, array in enumerate(arrays.values()):
        for layer in range(2):
            expected = pool_by_hand(array[layer].astype(np.float32), 2)
            np.testing.assert_allclose(found[speed, layer], expected, atol=2e-3)


def test_speech_alone_is_read_at_several_speeds() -> None:
    for name, feature in FEATURES.items():
        if name != "speech":
            assert feature.arrays(Preparation()) == (name,)


def test_what_is_absent_is_nothing_to_an_encoder() -> None:
    """Pictures are zero once normalised, and sound is what is made of zeros."""
    preparation = Preparation()
    video = FEATURES["video"].to_model(FEATURES["video"].absent(preparation, {}), LOOK)
    assert normalise(torch.from_numpy(video.copy())[None]).abs().max() < 0.01
    for name in ("audio", "log_mel"):
        absent = FEATURES[name].absent(preparation, {})
        assert not absent["waveform"].any() and len(absent["waveform"]) == 108_045
        mel = cast(Mel, FEATURES[name])
        np.testing.assert_array_equal(absent[name], mel.compute(np.zeros(108_045)))
    np.testing.assert_array_equal(FEATURES["audio"].absent(preparation, {})["audio"], mfcc(np.zeros(108_045)))


@pytest.mark.parametrize("name", list(FEATURES))
def test_noise_has_the_shape_that_a_graph_takes(name: str) -> None:
    feature = FEATURES[name]
    preparation = Preparation((name,), speech_sha256="0" * 64, expression_sha256="0" * 64)
    sizes = {"speech_layers": 5, "speech_width": 6, "expression_features": 9}
    shape = feature.graph_shape(LOOK, preparation, sizes)
    arrays = feature.noise(np.random.default_rng(0), shape, preparation)
    found = feature.to_graph({each: arrays[each] for each in feature.graph_arrays(preparation)}, LOOK)
    assert found.shape == shape and found.dtype == feature.dtype
