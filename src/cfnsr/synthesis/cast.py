"""The actors: all that does not change from take to take of one person."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

Colour = tuple[float, float, float]  # RGB, 0 to 255

SKINS: tuple[Colour, ...] = (
    (241, 208, 180),
    (232, 190, 158),
    (222, 178, 142),
    (205, 158, 122),
    (186, 138, 102),
    (164, 116, 84),
)
HAIRS: tuple[Colour, ...] = (
    (38, 28, 24),
    (62, 42, 30),
    (88, 60, 38),
    (120, 82, 48),
    (150, 112, 66),
    (108, 50, 30),
)
EYES: tuple[Colour, ...] = ((74, 48, 30), (96, 70, 40), (70, 100, 120), (82, 108, 76), (92, 112, 138))
SHIRTS: tuple[Colour, ...] = (
    (40, 44, 52),
    (70, 84, 110),
    (104, 60, 66),
    (62, 92, 78),
    (120, 116, 110),
    (86, 70, 104),
)
BACKGROUNDS: tuple[Colour, ...] = (
    (206, 208, 210),
    (190, 200, 208),
    (208, 200, 186),
    (186, 196, 186),
    (200, 190, 200),
)
HAIR_STYLES = {"male": ("short", "side", "crop"), "female": ("long", "bob", "bun")}


@dataclass(frozen=True)
class Face:
    """Shape of a head at rest, each figure beside the average of 1, and its colours."""

    width: float
    jaw: float
    chin: float
    eye_size: float
    eye_gap: float
    brow_height: float
    brow_weight: float
    nose_width: float
    nose_length: float
    mouth_width: float
    lip_weight: float
    skin: Colour
    hair: Colour
    eyes: Colour
    lips: Colour
    shirt: Colour
    background: Colour
    hair_style: str
    lashes: bool
    stubble: float


@dataclass(frozen=True)
class Throat:
    """Organ of speech: middle pitch in Hz, formants beside a man's, spectral tilt in dB an octave."""

    pitch: float
    formants: float
    tilt: float
    breath: float
    level: float


@dataclass(frozen=True)
class Person:
    """One actor, the same in all of his or her takes."""

    number: int
    sex: str
    face: Face
    throat: Throat


def cast(number: int, seed: int) -> Person:
    """Draw actor `number` (from 1) of the company of a seed; odd numbers are men, as in RAVDESS.

    >>> cast(3, seed=0) == cast(3, seed=0), cast(3, 0).sex, cast(4, 0).sex
    (True, 'male', 'female')
    """
    rng = np.random.default_rng((seed, number))
    sex = "male" if number % 2 else "female"
    man = sex == "male"

    def about(mean: float, spread: float) -> float:
        return float(mean + spread * np.clip(rng.standard_normal(), -1.8, 1.8))

    def one_of(colours: tuple[Colour, ...], spread: float = 0.06) -> Colour:
        # lighter or darker as a whole, and hardly another hue
        light = about(1.0, spread) * (1.0 + rng.normal(0.0, 0.012, 3))
        red, green, blue = np.clip(np.array(colours[rng.integers(len(colours))]) * light, 0.0, 255.0).tolist()
        return (red, green, blue)

    skin = one_of(SKINS, 0.02)
    blood = (186.0, 74.0, 78.0) if man else (190.0, 48.0, 66.0)
    rouge = 0.45 if man else 0.65
    red, green, blue = (rouge * b + (1 - rouge) * 0.92 * s for b, s in zip(blood, skin, strict=True))
    face = Face(
        width=about(1.02 if man else 0.97, 0.03),
        jaw=about(1.05 if man else 0.95, 0.03),
        chin=about(1.03 if man else 0.98, 0.03),
        eye_size=about(0.98 if man else 1.06, 0.03),
        eye_gap=about(1.0, 0.02),
        brow_height=about(0.97 if man else 1.04, 0.04),
        brow_weight=about(1.2 if man else 0.85, 0.1),
        nose_width=about(1.05 if man else 0.95, 0.06),
        nose_length=about(1.0, 0.03),
        mouth_width=about(1.02 if man else 0.98, 0.03),
        lip_weight=about(0.92 if man else 1.1, 0.07),
        skin=skin,
        hair=one_of(HAIRS),
        eyes=one_of(EYES),
        lips=(red, green, blue),
        shirt=one_of(SHIRTS, 0.12),
        background=one_of(BACKGROUNDS, 0.04),
        hair_style=str(rng.choice(HAIR_STYLES[sex])),
        lashes=not man,
        stubble=float(rng.uniform(0.0, 0.35)) if man else 0.0,
    )
    throat = Throat(
        pitch=about(112.0 if man else 200.0, 8.0 if man else 12.0),
        formants=about(1.0 if man else 1.16, 0.025),
        tilt=about(0.0 if man else -0.5, 0.5),
        breath=about(0.03 if man else 0.05, 0.012),
        level=about(0.0, 0.8),
    )
    return Person(number, sex, face, throat)
