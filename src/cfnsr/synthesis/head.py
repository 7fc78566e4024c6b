"""The head: skin with its light and shade, ears and hair. Painted softly.

Figures are in face coordinates (see `face`) and are drawn by eye.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from cfnsr.synthesis.cast import Face
from cfnsr.synthesis.shapes import Shape, between, curve, fixed, mirrored, oval, shifted, tone

Array = NDArray[np.float64]

# Outlines "x y, x y, ..." in face coordinates: behind the face from the left to the middle (the right is its
# mirror image), before the face all the way round.
HAIR_BEHIND = {
    "long": "-.95 2.5, -1.38 2.2, -1.42 1, -1.4 0, -1.36 -.8, -1 -1.55, 0 -1.88",
    "bob": "-.7 1.35, -1.28 1.25, -1.45 .7, -1.4 0, -1.36 -.8, -1 -1.55, 0 -1.86",
    "bun": "-1 -.1, -1.2 -.3, -1.24 -.9, -.95 -1.5, -.6 -1.72, 0 -1.8",
    "short": "-1 .2, -1.18 -.1, -1.25 -.7, -1.1 -1.35, -.7 -1.75, 0 -1.86",
    "side": "-1 .2, -1.18 -.1, -1.27 -.7, -1.12 -1.4, -.7 -1.84, 0 -1.96",
    "crop": "-1 0, -1.14 -.2, -1.17 -.8, -1 -1.36, -.6 -1.62, 0 -1.7",
}
HAIR_BEFORE = {
    "long": "-1.2 .9, -1.24 0, -1.2 -.8, -.85 -1.5, 0 -1.78, .85 -1.5, 1.2 -.8, "
    "1.24 0, 1.2 .9, 1.08 .3, .98 -.5, .4 -1.2, -.3 -1.3, -.98 -.5, -1.08 .3",
    "bob": "-1.24 1.1, -1.3 .2, -1.24 -.8, -.85 -1.5, 0 -1.78, .85 -1.5, 1.24 -.8, "
    "1.3 .2, 1.24 1.1, 1.1 .4, .98 -.6, .5 -1, -.2 -.98, -.98 -.6, -1.1 .4",
    "bun": "-1.1 -.2, -1.14 -.8, -.85 -1.4, 0 -1.7, .85 -1.4, 1.14 -.8, "
    "1.1 -.2, 1 -.6, .7 -1.1, 0 -1.32, -.7 -1.1, -1 -.6",
    "short": "-1.1 0, -1.16 -.7, -.9 -1.45, 0 -1.8, .9 -1.45, 1.16 -.7, "
    "1.1 0, 1.02 -.5, .85 -1.02, 0 -1.16, -.85 -1.02, -1.02 -.5",
    "side": "-1.1 .1, -1.18 -.7, -.9 -1.5, 0 -1.9, .9 -1.5, 1.18 -.7, "
    "1.1 .1, 1.02 -.5, .9 -.9, .2 -1.28, -.5 -1.2, -.95 -.8, -1.02 -.5",
    "crop": "-1.08 -.2, -1.1 -.8, -.85 -1.38, 0 -1.64, .85 -1.38, 1.1 -.8, "
    "1.08 -.2, 1.03 -.6, .8 -1.16, 0 -1.3, -.8 -1.16, -1.03 -.6",
}
FOREHEAD = "1.09 -.45, .97 -.95, .66 -1.36, 0 -1.52, -.66 -1.36, -.97 -.95, -1.09 -.45"
EAR = "-1.06 -.1, -1.2 -.22, -1.3 -.02, -1.25 .36, -1.12 .6, -1.02 .5"
INNER_EAR = "-1.1 -.05, -1.19 -.1, -1.22 .05, -1.14 .35"
COVERS_EARS = ("long", "bob")
# Light falls from the upper left: rings of the face (size, brightness, shift), each nearer to the light.
LIGHT = ((1.0, 0.80, 0.0), (0.93, 0.90, -0.02), (0.84, 0.97, -0.05), (0.7, 1.01, -0.08))
BLOOD, FLUSH, BEARD = (190.0, 90.0, 80.0), (225.0, 110.0, 105.0), (80.0, 80.0, 90.0)


def head_shapes(face: Face, points: Array, unit: Mapping[int, Array]) -> list[Shape]:
    """Shapes under the features, from the back to the front.

    Args:
        points: landmarks in face coordinates (frames, 68, 2).
        unit: intensity (frames,) of each action unit, 0 to 1.
    """
    return [*_hair_behind(face, len(points)), *_ears(face, len(points)), *_skin(face, points, unit)]


def hair_shapes(face: Face, frames: int) -> list[Shape]:
    """Shapes of the hair over forehead and temples, above all else."""
    outline = _drawn(HAIR_BEFORE[face.hair_style], face, frames)
    gloss = _drawn("-.75 -1.3, -.45 -1.52, -.1 -1.6", face, frames)
    return [
        Shape(curve(np.concatenate([outline, outline[:, :1]], axis=1)), face.hair, raised=-0.1),
        Shape(curve(gloss), tone(face.hair, 1.25, (255, 255, 255), 0.06), line=0.06, raised=-0.1),
    ]


def _drawn(text: str, face: Face, frames: int) -> Array:
    """Parse an outline (frames, n, 2) that keeps still on the head, as wide as the face."""
    points = [(float(x), float(y)) for x, y in (pair.split() for pair in text.split(","))]
    return fixed(frames, *points) * (face.width, 1.0)


def _hair_behind(face: Face, frames: int) -> list[Shape]:
    half = _drawn(HAIR_BEHIND[face.hair_style], face, frames)
    whole = np.concatenate([half, mirrored(half[:, -2::-1])], axis=1)
    shapes = [Shape(curve(whole), tone(face.hair, 0.8), raised=-0.7)]
    if face.hair_style == "bun":
        shapes.insert(0, Shape(oval(fixed(frames, (0.1, -1.9))[:, 0], 0.42, 0.34), face.hair, raised=-0.9))
    return shapes


def _ears(face: Face, frames: int) -> list[Shape]:
    if face.hair_style in COVERS_EARS:
        return []
    colours = (tone(face.skin, 0.86, BLOOD, 0.08), tone(face.skin, 0.66))
    outlines = [curve(_drawn(text, face, frames)) for text in (EAR, INNER_EAR)]
    return [
        Shape(side, colour, raised=-0.5)
        for outline, colour in zip(outlines, colours, strict=True)
        for side in (outline, mirrored(outline))
    ]


def _skin(face: Face, points: Array, unit: Mapping[int, Array]) -> list[Shape]:
    frames = len(points)
    skin = face.skin
    ring = np.concatenate([points[:, :17], _drawn(FOREHEAD, face, frames), points[:, :1]], axis=1)
    edge = curve(ring)
    shapes = []
    for size, brightness, shift in LIGHT:
        centre = np.array([shift, 0.30])
        shapes.append(Shape(shifted(edge * size + centre * (1 - size), shift, 0.0), tone(skin, brightness)))
    if face.stubble:
        beard = np.concatenate(
            [points[:, 3:14], shifted(points[:, [54, 52, 51, 50, 48]], 0.0, -0.08)], axis=1
        )
        shapes.append(Shape(shifted(beard * (0.95, 0.97), 0.0, 0.03), tone(skin, 0.9, BEARD, face.stubble)))
        around = oval(points[:, [48, 54, 57]].mean(axis=1), 0.5, 0.26)
        shapes.append(Shape(around, tone(skin, 0.96, BEARD, face.stubble * 0.4)))
    shapes.append(Shape(oval(fixed(frames, (-0.12, -0.82))[:, 0], 0.5, 0.24), tone(skin, 1.05)))
    for corner, lid, brow, sign in ((36, 41, 19, -1.0), (45, 46, 24, 1.0)):
        middle = points[:, [corner, lid, brow]].mean(axis=1)
        middle = np.stack([np.full(frames, sign * 0.47 * face.eye_gap), middle[:, 1] + 0.05], axis=-1)
        shapes.append(Shape(oval(middle, 0.36, 0.22), tone(skin, 0.89, (150, 80, 80), 0.05)))
        cheek = np.stack([np.full(frames, sign * 0.62), 0.64 - 0.08 * unit[6] - 0.05 * unit[12]], axis=-1)
        blush = 0.10 + 0.16 * np.maximum(unit[6], unit[12])
        rosy = tone(skin, 1.06, FLUSH, 1.0)
        shapes.append(
            Shape(oval(cheek, 0.27 + 0.05 * unit[6], 0.19), rosy, strength=blush, ground=tone(skin, 1.03))
        )
    bridge = np.concatenate([points[:, [27, 28, 29, 30]], points[:, [35]], points[:, [42]]], axis=1)
    shapes.append(Shape(bridge, tone(skin, 0.87), raised=0.1))
    ridge = between(shifted(points[:, 27:31], -0.07, 0.0), shifted(points[:, 27:31], 0.04, 0.0))
    shapes.append(Shape(ridge, tone(skin, 1.07), raised=0.1))
    wings = points[:, 31:36] * (1.18, 1.0)
    nose_ball = np.concatenate(
        [wings, shifted(points[:, [30]], 0.16, 0.0), shifted(points[:, [30]], -0.16, 0.0)], axis=1
    )
    shapes.append(Shape(nose_ball, tone(skin, 0.9, BLOOD, 0.08), raised=0.15))
    shapes.append(Shape(oval(shifted(points[:, 30], -0.03, 0.02), 0.10, 0.08), tone(skin, 1.1), raised=0.2))
    below = shifted(points[:, 57], 0.0, 0.09)
    shapes.append(Shape(oval(below, 0.24, 0.05), tone(skin, 0.8)))
    chin = shifted(points[:, 8], -0.03, -0.17)
    shapes.append(Shape(oval(chin, 0.2, 0.1), tone(skin, 1.05)))
    return shapes
