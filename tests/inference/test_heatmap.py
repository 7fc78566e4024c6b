"""Maps drawn over pictures: at their place, and as strong as their weight."""

import cv2
import numpy as np
import pytest
import torch
from matplotlib import colormaps
from torch.nn import functional

from cfnsr.errors import InputError
from cfnsr.inference import heatmap as drawing
from cfnsr.inference.heatmap import heatmap, scale_of, upsampled


def weights(*shape: int, seed: int = 0) -> np.ndarray:
    drawn = np.random.default_rng(seed).random(shape) ** 4
    shares: np.ndarray = drawn / drawn.sum()
    return shares


@pytest.mark.parametrize("shape", [(30, 28, 28), (7, 20, 33), (2, 3, 4), (1, 1, 1)])
def test_upsampling_is_trilinear(shape: tuple[int, int, int]) -> None:
    places = weights(2, 3, 4)
    between = functional.interpolate(
        torch.from_numpy(places)[None, None], shape, mode="trilinear", align_corners=False
    )[0, 0].numpy()
    np.testing.assert_allclose(upsampled(places, shape), between / between.sum(), atol=1e-12)


def test_upsampling_keeps_mass_and_position() -> None:
    for t, h, w in np.ndindex(2, 3, 3):
        places = np.zeros((2, 3, 3))
        places[t, h, w] = 1
        fine = upsampled(places, (10, 12, 12))
        assert fine.sum() == pytest.approx(1)
        own = fine[5 * t : 5 * t + 5, 4 * h : 4 * h + 4, 4 * w : 4 * w + 4]
        assert own.max() == fine.max() and own.sum() > 0.4
        # The places' parts of any map sum to 1, so that none counts for more than another.
        whole = upsampled(0.5 * places + 0.5 / 18, (10, 12, 12))
        np.testing.assert_allclose(whole, 0.5 * fine + 0.5 / fine.size, atol=1e-12)


def test_an_even_map_stays_even_wherever_its_centres_are() -> None:
    centres = [np.array([0.1, 0.6]), np.array([0.0, 0.5, 0.9]), np.array([0.3])]
    fine = upsampled(np.full((2, 3, 1), 1 / 6), (8, 9, 10), centres)
    np.testing.assert_allclose(fine, 1 / fine.size)


def test_weights_lie_at_their_centres() -> None:
    """Of a place that sees the middle of the 17th of 30 frames, that frame is drawn the strongest."""
    places = np.zeros((2, 7, 7))
    places[1, 3, 6] = 1
    centres = [
        (np.arange(count) * stride + 0.5) / size
        for count, stride, size in ((2, 16, 30), (7, 32, 224), (7, 32, 224))
    ]
    fine = upsampled(places, (30, 224, 224), centres)
    assert fine[16:, 96, 192].min() == fine.max() > fine[15, 96, 192]
    assert fine[16, 95, 192] < fine.max() > fine[16, 97, 192]
    assert fine[20, 96, 191] < fine.max() == fine[20, 96, 223], "beyond the last centre its weight holds"


def test_heatmap_draws_in_grey_where_there_is_no_weight_and_in_the_scale_where_all_is() -> None:
    frames = np.random.default_rng(0).integers(0, 255, (2, 8, 8, 3), dtype=np.uint8)
    places = np.zeros((2, 4, 4))
    places[0, 0, 3] = 1
    drawn = heatmap(frames, places)
    assert drawn.shape == frames.shape and drawn.dtype == np.uint8
    grey = cv2.cvtColor(frames[1], cv2.COLOR_RGB2GRAY).astype(int)
    assert abs(drawn[1] - grey[..., None]).max() <= 1, "the second frame has no weight"
    top = 255 * np.array(colormaps["viridis"](255)[:3])
    grey = cv2.cvtColor(frames[0], cv2.COLOR_RGB2GRAY)
    expected = (1 - drawing.OPACITY) * grey[0, 7] + drawing.OPACITY * top
    assert abs(drawn[0, 0, 7] - expected).max() <= 1, "all the weight"
    assert abs(drawn[0, 7, 0].astype(int) - grey[7, 0]).max() <= 1, "the opposite corner has none"


def test_a_map_that_is_almost_even_looks_so() -> None:
    """The scale reaches to twice the uniform weight at least, so that small differences stay small."""
    even = np.full((1, 2, 2), 0.25)
    even[0, 0] += [0.01, -0.01]
    drawn = heatmap(np.full((1, 32, 32, 3), 128, np.uint8), even).astype(int)
    assert np.ptp(drawn.reshape(-1, 3), axis=0).max() < 12
    assert scale_of(even) == 2
    assert scale_of(np.eye(4)[None] / 4) == 4
    strong = heatmap(np.full((1, 32, 32, 3), 128, np.uint8), even, scale=1.04).astype(int)
    assert np.abs(strong - 128).mean() > np.abs(drawn - 128).mean()


def test_bad_input_is_refused() -> None:
    frames = np.zeros((2, 8, 8, 3), np.uint8)
    with pytest.raises(InputError, match=r"frames are float64 of shape \(2, 8, 8, 3\): expected uint8"):
        heatmap(frames.astype(float), weights(1, 2, 2))  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"a map is of shape \(2, 2\): expected \(time, height, width\)"):
        heatmap(frames, weights(2, 2))
    with pytest.raises(InputError, match=r"\(1, 2, 3\) centres of a map of \(1, 2, 2\) places"):
        heatmap(frames, weights(1, 2, 2), centres=[np.zeros(1), np.zeros(2), np.zeros(3)])
