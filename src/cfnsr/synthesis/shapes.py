"""Paper cuts: coloured shapes over the landmarks of a moving face, and the curves that bound them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from cfnsr.synthesis.cast import Colour

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Shape:
    """One piece of paper.

    Args:
        points: (frames, corners, 2) in face coordinates.
        colour: RGB.
        strength: (frames,) opacity of the colour over `ground`; below 0.06 it is left out.
        ground: the colour beneath.
        line: width in distances between the pupils; 0 for a filled shape.
        raised: height above the round of the face, which turning makes visible.
    """

    points: Array
    colour: Colour
    strength: Array | None = None
    ground: Colour = (0.0, 0.0, 0.0)
    line: float = 0.0
    raised: float = 0.0


def curve(points: Array, steps: int = 4) -> Array:
    """Interpolate a smooth curve (frames, m, 2) through points (frames, n, 2)."""
    smooth: Array = _spline(points.shape[1], steps) @ points
    return smooth


def oval(centre: Array, width: Array | float, height: Array | float, corners: int = 20) -> Array:
    """Ovals (frames, corners, 2) about centres (frames, 2), of half axes given a frame or for all."""
    angle = np.linspace(0.0, 2.0 * np.pi, corners, endpoint=False)
    axes = np.stack(np.broadcast_arrays(width, height, centre[:, 0])[:2], axis=-1)
    ring: Array = centre[:, None] + axes[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    return ring


def between(first: Array, second: Array) -> Array:
    """Area between two curves that run the same way."""
    return np.concatenate([first, second[:, ::-1]], axis=1)


def fixed(frames: int, *points: tuple[float, float]) -> Array:
    """Points (frames, n, 2) that stay where they are on the head."""
    return np.broadcast_to(np.array(points, dtype=float), (frames, len(points), 2))


def shifted(points: Array, x: float, y: float) -> Array:
    """Shift points."""
    moved: Array = points + np.array([x, y])
    return moved


def trail(point: Array, *offsets: tuple[float, float]) -> Array:
    """Points (frames, n, 2) beside one that moves (frames, 2)."""
    points: Array = point[:, None] + np.array(offsets)
    return points


def mirrored(points: Array) -> Array:
    """Mirror points to the other side of the face."""
    return points * (-1.0, 1.0)


def tone(colour: Colour, factor: float, towards: Colour = (0.0, 0.0, 0.0), amount: float = 0.0) -> Colour:
    """Make a colour brighter or darker by a factor, and mix some of another in."""
    red, green, blue = (
        float(np.clip((1 - amount) * factor * own + amount * other, 0.0, 255.0))
        for own, other in zip(colour, towards, strict=True)
    )
    return (red, green, blue)


@cache
def _spline(knots: int, steps: int) -> Array:
    """Matrix ((knots - 1) * steps + 1, knots) that draws a Catmull-Rom curve through its knots."""
    t = np.arange(steps) / steps
    weights = 0.5 * np.stack(
        [-t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, -(t**2) + t**3]
    )
    matrix = np.zeros(((knots - 1) * steps + 1, knots))
    for segment in range(knots - 1):
        rows = slice(segment * steps, (segment + 1) * steps)
        for offset in range(4):
            matrix[rows, np.clip(segment + offset - 1, 0, knots - 1)] += weights[offset]
    matrix[-1, -1] = 1.0
    return matrix
