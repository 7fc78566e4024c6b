"""The colours of emotions: far apart for everyone, and text upon them legible."""

from itertools import combinations

import numpy as np
import pytest
from numpy.typing import NDArray

from cfnsr.emotions import RAVDESS
from cfnsr.inference.palette import EMOTIONS, colours, ink, rgb

# Machado, Oliveira & Fernandes 2009, table of severity 1.0, upon linear RGB.
SIGHT = {
    "all cones": np.eye(3),
    "without red": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "without green": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "without blue": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}


def linear(colour: str) -> NDArray[np.float64]:
    parts = np.array(rgb(colour)) / 255
    return np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)


def lab(light: NDArray[np.float64]) -> NDArray[np.float64]:
    """CIE L*a*b* (D65) of linear sRGB; another space than the one the colours were searched in."""
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = to_xyz @ np.clip(light, 0, 1) / np.array([0.9505, 1.0, 1.089])
    x, y, z = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("sight", SIGHT)
def test_any_two_differ_for_everyone(sight: str) -> None:
    seen = {name: lab(SIGHT[sight] @ linear(colour)) for name, colour in EMOTIONS.items()}
    for (one, first), (other, second) in combinations(seen.items(), 2):
        # about 2.3 is just noticeable
        assert np.linalg.norm(first - second) > 15, (sight, one, other)


def test_text_upon_a_colour_is_legible() -> None:
    """Contrast as of WCAG 2, 1.4.3: at least 4.5 to 1."""
    for colour in EMOTIONS.values():
        ground, text = (float(linear(each) @ (0.2126, 0.7152, 0.0722)) for each in (colour, ink(colour)))
        assert (max(ground, text) + 0.05) / (min(ground, text) + 0.05) > 4.5, colour


def test_each_emotion_has_its_own() -> None:
    assert set(EMOTIONS) == set(RAVDESS.emotions)
    assert colours(RAVDESS.emotions) == EMOTIONS
    mixed = colours(["happy", "bored", "awake", "sad"])
    assert list(mixed) == ["happy", "bored", "awake", "sad"]
    assert mixed["happy"] == EMOTIONS["happy"]
    assert len(set(mixed.values())) == 4
    many = colours([f"emotion {number}" for number in range(20)])
    assert len(many) == 20 and len(set(many.values())) == 8
