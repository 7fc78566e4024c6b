"""The actors: all that does not change from take to take of one person."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

Colour = tuple[float, float, float]  # RGB, 0 to 255


def _palette(colours: str) -> tuple[Colour, ...]:
    """Read colours as web pages write them.

    >>> _palette("f1d0b4 000000")
    ((241, 208, 180), (0, 0, 0))
    """
    return tuple((red, green, blue) for red, green, blue in map(bytes.fromhex, colours.split()))


SKINS = _palette("f1d0b4 e8be9e deb28e cd9e7a ba8a66 a47454")
HAIRS = _palette("261c18 3e2a1e 583c26 785230 967042 6c321e")
EYES = _palette("4a301e 604628 466478 526c4c 5c708a")
SHIRTS = _palette("282c34 46546e 683c42 3e5c4e 78746e 564668")
BACKGROUNDS = _palette("ced0d2 bec8d0 d0c8ba bac4ba c8bec8")
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
