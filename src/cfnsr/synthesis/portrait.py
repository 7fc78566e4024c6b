"""Paint a moving face: every shape is a polygon over the landmarks, laid one on another like paper cuts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cfnsr.synthesis.acting import ACTION_UNITS
from cfnsr.synthesis.cast import Colour, Face, Person
from cfnsr.synthesis.face import at_rest, move
from cfnsr.synthesis.features import feature_shapes
from cfnsr.synthesis.head import hair_shapes, head_shapes
from cfnsr.synthesis.performance import Performance
from cfnsr.synthesis.shapes import Shape, curve, tone

Array = NDArray[np.float64]

PUPILS_APART = 0.2  # of the picture's height
EYES_AT = (0.5, 0.44)  # of the picture's width and height
SOFTNESS = 0.035  # blur of the skin's shading, in distances between the pupils
SUBPIXELS = 4  # bits of the fraction in OpenCV's drawing calls
NOSE_HEIGHT = np.zeros(68)  # of the landmarks above the round of the face
NOSE_HEIGHT[27:36] = (0.06, 0.16, 0.27, 0.36, 0.14, 0.20, 0.24, 0.20, 0.14)
PIVOT = np.array([0.0, 1.2, -0.6])  # the neck, about which the head turns


def paint(
    person: Person, performance: Performance, size: tuple[int, int], rng: np.random.Generator
) -> tuple[Array, Iterator[NDArray[np.uint8]]]:
    """Return landmarks in pixels (frames, 68, 2), and pictures (H, W, 3) uint8 RGB, painted when iterated.

    Args:
        size: (width, height) of the picture in pixels.
        rng: the take's own generator, for the grain of the background.
    """
    points = move(at_rest(person.face), performance.units)
    unit = dict(zip(ACTION_UNITS, performance.units.T / 5.0, strict=True))
    soft = head_shapes(person.face, points, unit)
    crisp = feature_shapes(person.face, points, performance.gaze, unit)
    crisp += hair_shapes(person.face, len(points))
    landmarks = _project(points, _depth(points) + NOSE_HEIGHT, performance, size)
    return landmarks, _frames(_backdrop(person.face, size, rng), soft, crisp, performance, size)


def _frames(
    ground: NDArray[np.uint8],
    soft: list[Shape],
    crisp: list[Shape],
    performance: Performance,
    size: tuple[int, int],
) -> Iterator[NDArray[np.uint8]]:
    import cv2

    unit = PUPILS_APART * size[1]
    layers = _layers([*soft, *crisp], performance, size)
    softness = SOFTNESS * unit
    reach = 2 * round(1.5 * softness) + 1
    for index in range(len(performance.units)):
        picture = ground.copy()
        for layer in layers[: len(soft)]:
            layer.draw(picture, index)
        picture = np.asarray(cv2.GaussianBlur(picture, (reach, reach), softness), dtype=np.uint8)
        for layer in layers[len(soft) :]:
            layer.draw(picture, index)
        yield picture


@dataclass(frozen=True)
class _Layer:
    """A shape in pixels, ready for OpenCV."""

    corners: NDArray[np.int32]  # (frames, corners, 2), in 1 / 2**SUBPIXELS pixels
    colours: list[Colour]
    seen: list[bool]
    width: int

    def draw(self, picture: NDArray[np.uint8], index: int) -> None:
        import cv2

        if not self.seen[index]:
            return
        corners, colour = self.corners[index], self.colours[index]
        if self.width:
            cv2.polylines(picture, [corners], False, colour, self.width, cv2.LINE_AA, SUBPIXELS)
        else:
            cv2.fillPoly(picture, [corners], colour, cv2.LINE_AA, SUBPIXELS)


def _layers(shapes: list[Shape], performance: Performance, size: tuple[int, int]) -> list[_Layer]:
    frames, unit = len(performance.units), PUPILS_APART * size[1]
    # all shapes turn with the head at once: one array is far quicker than eighty
    points = np.concatenate([shape.points for shape in shapes], axis=1)
    raised = np.repeat([shape.raised for shape in shapes], [shape.points.shape[1] for shape in shapes])
    pixels = _project(points, _depth(points) + raised, performance, size)
    corners = np.round(pixels * 2**SUBPIXELS).astype(np.int32)
    pieces = np.split(corners, np.cumsum([shape.points.shape[1] for shape in shapes])[:-1], axis=1)
    layers = []
    for shape, piece in zip(shapes, pieces, strict=True):
        strength = np.ones(frames) if shape.strength is None else np.clip(shape.strength, 0.0, 1.0)
        mixed = strength[:, None] * np.array(shape.colour) + (1 - strength[:, None]) * np.array(shape.ground)
        layers.append(
            _Layer(
                corners=np.ascontiguousarray(piece),
                colours=[(red, green, blue) for red, green, blue in mixed.tolist()],
                seen=(strength > 0.06).tolist(),
                width=max(1, round(shape.line * unit)) if shape.line else 0,
            )
        )
    return layers


def _project(points: Array, depth: Array, performance: Performance, size: tuple[int, int]) -> Array:
    """Turn points (frames, n, 2) of height (frames, n) with the head, to pixels (frames, n, 2)."""
    pitch, yaw, roll = (angle[:, None] for angle in performance.rotation.T)
    x, y, z = points[..., 0] - PIVOT[0], points[..., 1] - PIVOT[1], depth - PIVOT[2]
    x, z = x * np.cos(yaw) + z * np.sin(yaw), z * np.cos(yaw) - x * np.sin(yaw)
    y = y * np.cos(pitch) - z * np.sin(pitch)
    x, y = x * np.cos(roll) - y * np.sin(roll), x * np.sin(roll) + y * np.cos(roll)
    turned = np.stack([x + PIVOT[0], y + PIVOT[1]], axis=-1) * performance.scale[:, None, None]
    centre = np.array(EYES_AT) * size
    pixels: Array = (turned + performance.shift[:, None]) * (PUPILS_APART * size[1]) + centre
    return pixels


def _depth(points: Array) -> Array:
    """Height of the round of the head above its middle plane at points (..., 2)."""
    x, y = points[..., 0], points[..., 1]
    depth: Array = (
        0.85 - 0.7 * np.minimum(np.square(x / 1.1), 1.4) - 0.12 * np.square(np.clip(y - 0.4, -2, 2))
    )
    return depth


def _backdrop(face: Face, size: tuple[int, int], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Paint wall, neck and shoulders (H, W, 3), which hardly move."""
    import cv2

    width, height = size
    x, y = np.meshgrid(np.linspace(-1, 1, width), np.linspace(-1, 1, height))
    light = 1.0 - 0.16 * (x + 0.25) ** 2 - 0.10 * (y + 0.2) ** 2
    coarse = rng.normal(0.0, 4.0, (height // 16 + 1, width // 16 + 1))
    cloth = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    wall = np.array(face.background) * light[..., None] + cloth[..., None]
    picture = np.clip(wall, 0, 255).astype(np.uint8)
    unit, middle = PUPILS_APART * height, np.array(EYES_AT) * size

    def fill(points: Array, colour: Colour) -> None:
        corners = np.round((points * unit + middle) * 2**SUBPIXELS).astype(np.int32)
        cv2.fillPoly(picture, [corners], colour, cv2.LINE_AA, SUBPIXELS)

    shoulders = [(-3.2, 4.0), (-3.0, 3.05), (-2.3, 2.62), (-1.2, 2.32), (-0.62, 2.12)]
    line = np.array([*shoulders, *[(-x, y) for x, y in reversed(shoulders)]])
    fill(curve(line[None])[0], face.shirt)
    neck_left = [(-0.62, 1.0), (-0.6, 1.8), (-0.7, 2.2), (-0.3, 2.55)]
    neck = [*neck_left, *[(-x, y) for x, y in reversed(neck_left)]]
    fill(curve(np.array(neck)[None])[0], tone(face.skin, 0.80))
    shade = [(-0.62, 1.2), (-0.58, 1.9), (0.0, 2.15), (0.58, 1.9), (0.62, 1.2)]
    fill(curve(np.array(shade)[None])[0], tone(face.skin, 0.66))
    for side in (-1, 1):
        collar = np.array([(0.72, 2.05), (0.98, 2.3), (0.28, 2.85), (0.22, 2.62)]) * (side, 1)
        fill(collar, tone(face.shirt, 1.18))
    return picture
