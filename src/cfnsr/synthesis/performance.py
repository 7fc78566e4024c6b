"""The course of one take: action units, head and mouth, frame by frame."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cfnsr.synthesis.acting import ACTION_UNITS

Array = NDArray[np.float64]

BLINK_SECONDS = 0.11  # half the width of a blink
# Intensities of AU26 and AU25 at the widest vowel; no higher, for the face must still show its emotion.
SPEAKING_JAW, SPEAKING_LIPS = 1.3, 2.0


@dataclass(frozen=True)
class Performance:
    """Visible movement of a take.

    Args:
        units: intensities (frames, 17) of `ACTION_UNITS`.
        rotation: pitch, yaw and roll (frames, 3) of the head in radians.
        shift: of the head (frames, 2), in distances between the pupils.
        scale: of the head (frames,), beside its mean size.
        gaze: shift of the irises (frames, 2), in distances between the pupils.
    """

    units: Array
    rotation: Array
    shift: Array
    scale: Array
    gaze: Array


def perform(apex: Array, opening: Array, fps: float, rng: np.random.Generator) -> Performance:
    """Let an expression rise, stay and fade while the mouth speaks, the eyes blink and the head moves.

    Args:
        apex: intensities (17,) at the height of the expression.
        opening: of the mouth by speech (frames,), 0 to 1.
    """
    count = len(opening)
    time = np.arange(count) / fps
    phase = np.linspace(0.0, 1.0, count)
    onset = rng.uniform(0.02, 0.06)
    offset = rng.uniform(0.9, 0.94)
    course = 0.15 + 0.85 * _smoothstep(phase, onset, onset + 0.1) * (
        1.0 - 0.5 * _smoothstep(phase, offset, 1.0)
    )
    liveliness = 1.0 + 0.06 * _wander(time, 1, 0.6, rng)
    units = apex * course[:, None] * liveliness
    for unit, widest in ((25, SPEAKING_LIPS), (26, SPEAKING_JAW)):
        column = ACTION_UNITS.index(unit)
        units[:, column] += widest * opening
    blink = ACTION_UNITS.index(45)
    units[:, blink] += 5.0 * _blinks(time, rng)
    return Performance(
        units=np.clip(units, 0.0, 5.0),
        rotation=_wander(time, 3, 0.45, rng) * np.radians((2.5, 4.0, 2.0)),
        shift=_wander(time, 2, 0.4, rng) * (0.05, 0.03),
        scale=1.0 + 0.015 * _wander(time, 1, 0.3, rng)[:, 0],
        gaze=_wander(time, 2, 0.5, rng) * (0.018, 0.008),
    )


def _smoothstep(phase: Array, start: float, stop: float) -> Array:
    part = np.clip((phase - start) / (stop - start), 0.0, 1.0)
    return part * part * (3.0 - 2.0 * part)


def _wander(time: Array, columns: int, hertz: float, rng: np.random.Generator) -> Array:
    """Slow smooth movement (frames, columns) of about unit size: a few sines around a frequency."""
    frequency = hertz * rng.uniform(0.4, 2.2, (3, 1, columns))
    start = rng.uniform(0.0, 2.0 * np.pi, (3, 1, columns))
    weight = np.array([1.0, 0.6, 0.4])[:, None, None]
    moved: Array = (weight * np.sin(2.0 * np.pi * frequency * time[None, :, None] + start)).sum(axis=0)
    return moved


def _blinks(time: Array, rng: np.random.Generator) -> Array:
    moments = rng.uniform(0.1, time[-1], rng.integers(0, 3))
    nearest = np.abs(time[:, None] - moments[None]).min(axis=1, initial=np.inf)
    closed: Array = np.clip(1.3 - nearest / BLINK_SECONDS, 0.0, 1.0)
    return closed
