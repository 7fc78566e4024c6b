"""The features: eyes, brows, nose, mouth, and the folds that come and go. Painted crisply.

Figures are in face coordinates (see `face`) and are drawn by eye.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from cfnsr.synthesis.cast import Face
from cfnsr.synthesis.face import AVERAGE
from cfnsr.synthesis.shapes import Shape, between, curve, fixed, mirrored, oval, shifted, tone, trail

Array = NDArray[np.float64]

LEFT_EYE, RIGHT_EYE = [36, 37, 38, 39, 40, 41], [45, 44, 43, 42, 47, 46]  # from the outer corner round
EYE_WHITE, EYE_SHADE, PUPIL, GLINT = (
    (238.0, 236.0, 232.0),
    (196.0, 192.0, 190.0),
    (12.0, 10.0, 10.0),
    (250.0,) * 3,
)
TEETH, TONGUE, THROAT = (240.0, 236.0, 226.0), (186.0, 86.0, 88.0), (70.0, 22.0, 26.0)
FOREHEAD_LINE = ((-0.6, 0.02), (-0.3, -0.03), (0.0, 0.02), (0.3, -0.03), (0.6, 0.02))


def feature_shapes(face: Face, points: Array, gaze: Array, unit: Mapping[int, Array]) -> list[Shape]:
    """Shapes of the features from the back to the front.

    Args:
        points: landmarks in face coordinates (frames, 68, 2).
        gaze: shift of the irises (frames, 2).
        unit: intensity (frames,) of each action unit, 0 to 1.
    """
    return [
        *_wrinkles(face, points, unit),
        *_nose(face, points),
        *_eye(face, points[:, LEFT_EYE], gaze, unit),
        *_eye(face, points[:, RIGHT_EYE], gaze, unit),
        *_brows(face, points),
        *_mouth(face, points),
    ]


def _wrinkles(face: Face, points: Array, unit: Mapping[int, Array]) -> list[Shape]:
    """Folds that action units press into the skin."""
    frames = len(points)
    fold = tone(face.skin, 0.60, (120, 50, 50), 0.10)
    shapes: list[Shape] = []

    def crease(line: Array, strength: Array, width: float = 0.035, both: bool = True) -> None:
        for side in (line, mirrored(line)) if both else (line,):
            shapes.append(Shape(curve(side), fold, strength=strength, ground=face.skin, line=width))

    # forehead, over the raised part of the brow
    lift = (points[:, 19:22] - AVERAGE[19:22])[..., 1].mean(axis=1)
    for height in (-0.68, -0.83, -0.98):
        rise = height + 0.5 * np.minimum(lift, 0.0)
        across = np.stack(
            [np.stack([np.full(frames, x), rise + bend], -1) for x, bend in FOREHEAD_LINE], axis=1
        )
        crease(across, 0.9 * np.maximum(unit[1], unit[2]) - 0.25, both=False)
    # between the brows
    inner = points[:, 21]
    frown = trail(inner, (0.07, -0.12), (0.10, 0.02), (0.08, 0.16))
    crease(frown, 1.3 * np.maximum(unit[4], 0.8 * unit[9]) - 0.25, 0.045)
    # bridge of the nose
    for height in (0.06, 0.17, 0.28):
        bridge = fixed(frames, (-0.14, height - 0.05), (0.0, height), (0.14, height - 0.05))
        crease(bridge, 1.3 * unit[9] - 0.2, both=False)
    # beside and below the eye
    outer = points[:, 36]
    for slope in (-0.10, 0.0, 0.10):
        crow = trail(outer, (-0.05, slope * 0.5), (-0.22, slope * 1.6))
        crease(crow, 1.1 * unit[6] - 0.2)
    bag = points[:, [36, 41, 40, 39]] + np.array([(0.03, 0.07), (0.0, 0.09), (0.0, 0.09), (-0.04, 0.06)])
    crease(bag, 0.12 + 0.8 * np.maximum(unit[6], 0.8 * unit[7]))
    # from the wing of the nose round the corner of the mouth
    wing, corner = points[:, 31], points[:, 48]
    round_mouth = np.stack(
        [
            shifted(wing, -0.09, -0.05),
            shifted(0.5 * (wing + corner), -0.19, -0.06),
            shifted(corner, -0.17, -0.02),
        ],
        axis=1,
    )
    crease(round_mouth, 0.15 + 0.8 * np.maximum.reduce([unit[12], unit[10], unit[9], 0.4 * unit[20]]), 0.04)
    # corners of the mouth: pulled down, stretched
    droop = trail(corner, (-0.03, 0.03), (-0.08, 0.12), (-0.08, 0.24))
    crease(droop, 1.1 * unit[15] - 0.1, 0.04)
    stretch = trail(corner, (-0.09, -0.12), (-0.12, 0.0), (-0.09, 0.13))
    crease(stretch, 1.0 * unit[20] - 0.2)
    chin = shifted(points[:, 57], 0.0, 0.16)
    boss = trail(chin, (-0.15, 0.05), (0.0, -0.01), (0.15, 0.05))
    crease(boss, 1.2 * unit[17] - 0.1, both=False)
    return shapes


def _nose(face: Face, points: Array) -> list[Shape]:
    shadow = tone(face.skin, 0.45, (90, 30, 30), 0.15)
    round_wing = np.array([(-0.01, -0.15), (-0.07, -0.04), (0.0, 0.03)])
    left, right = points[:, [31]] + round_wing, points[:, [35]] + round_wing * (-1.0, 1.0)
    soft = tone(face.skin, 0.66, (120, 50, 50), 0.1)
    return [
        Shape(curve(left), soft, line=0.03, raised=0.12),
        Shape(curve(right), soft, line=0.03, raised=0.12),
        Shape(curve(points[:, 31:36]), tone(face.skin, 0.74), line=0.03, raised=0.15),
        Shape(oval(shifted(points[:, 32], -0.02, -0.015), 0.065, 0.03, 12), shadow, raised=0.15),
        Shape(oval(shifted(points[:, 34], 0.02, -0.015), 0.065, 0.03, 12), shadow, raised=0.15),
    ]


def _eye(face: Face, eye: Array, gaze: Array, unit: Mapping[int, Array]) -> list[Shape]:
    """Shapes of one eye from six landmarks: outer corner, two of the upper lid, inner corner, two lower."""
    upper = curve(eye[:, [0, 1, 2, 3]])
    lower = curve(eye[:, [0, 5, 4, 3]])
    side = float(np.sign(eye[0, 3, 0] - eye[0, 0, 0]))
    radius = 0.145 * face.eye_size
    centre = np.stack([0.5 * (eye[:, 0, 0] + eye[:, 3, 0]), eye[:, [0, 3], 1].mean(axis=1) - 0.025], axis=-1)
    centre = centre + gaze
    lash = tone(face.hair, 0.35)
    crease = eye[:, :3] + np.array([(0.0, -0.07), (0.0, -0.08), (0.0, -0.08)])
    crease[:, :, 1] = np.minimum(crease[:, :, 1], -0.13 - 0.06 * unit[5][:, None] + 0.05 * unit[4][:, None])
    shapes = [
        Shape(curve(crease), tone(face.skin, 0.68), line=0.03),
        Shape(between(upper, lower), EYE_WHITE),
        Shape(between(upper, upper * 0.75 + lower * 0.25), EYE_SHADE),
    ]
    for size, colour in ((1.0, tone(face.eyes, 0.6)), (0.8, face.eyes), (0.42, PUPIL)):
        disc = oval(centre, size * radius, size * radius, 18)
        shapes.append(Shape(_within(disc, upper, lower), colour))
    glint = oval(shifted(centre, -0.05, -0.05), 0.032, 0.032, 10)
    shapes.append(Shape(_within(glint, upper, lower), GLINT))
    shapes.append(Shape(lower, tone(face.skin, 0.55), line=0.02))
    shapes.append(Shape(upper, lash, line=0.06 if face.lashes else 0.045))
    if face.lashes:
        flick = trail(eye[:, 0], (0.0, 0.0), (-0.07 * side, -0.05))
        shapes.append(Shape(flick, lash, line=0.04))
    return shapes


def _within(disc: Array, upper: Array, lower: Array) -> Array:
    """Cut a disc by the lids: its points held between two curves with the same corners."""
    start, stop = upper[:, :1, 0], upper[:, -1:, 0]
    place = (disc[..., 0] - start) / (stop - start) * (upper.shape[1] - 1)
    index = np.clip(np.floor(place).astype(int), 0, upper.shape[1] - 2)
    part = np.clip(place - index, 0.0, 1.0)

    def height(lid: Array) -> Array:
        left = np.take_along_axis(lid[..., 1], index, axis=1)
        right = np.take_along_axis(lid[..., 1], index + 1, axis=1)
        lid_height: Array = left * (1 - part) + right * part
        return lid_height

    return np.stack([disc[..., 0], np.clip(disc[..., 1], height(upper), height(lower))], axis=-1)


def _brows(face: Face, points: Array) -> list[Shape]:
    dark = tone(face.hair, 0.62)
    weight = np.array([0.012, 0.045, 0.06, 0.065, 0.055])[:, None] * face.brow_weight * (0.0, 1.0)
    left, right = points[:, 17:22], points[:, 26:21:-1]
    return [Shape(between(curve(brow - weight), curve(brow + weight)), dark) for brow in (left, right)]


def _mouth(face: Face, points: Array) -> list[Shape]:
    outer_upper, outer_lower = curve(points[:, 48:55], 3), curve(points[:, [48, 59, 58, 57, 56, 55, 54]], 3)
    upper, lower = curve(points[:, 60:65]), curve(points[:, [60, 67, 66, 65, 64]])
    lower[..., 1] = np.maximum(lower[..., 1], upper[..., 1])
    gap = (lower - upper) * (0.0, 1.0)
    depth = gap[..., 1:].max(axis=1, keepdims=True)
    reach = np.minimum(0.13, 0.62 * gap[..., 1:])
    teeth = upper + np.concatenate([np.zeros_like(reach), reach], axis=-1)
    wide = np.clip((depth[:, 0, 0] - 0.05) / 0.08, 0.0, 1.0)
    tongue = lower - gap * np.clip(depth - 0.2, 0.0, 0.35)
    seam = tone(face.lips, 0.42)
    return [
        Shape(between(outer_upper, outer_lower), face.lips),
        Shape(between(outer_upper, _resampled(outer_upper, upper)), tone(face.lips, 0.84)),
        Shape(oval(shifted(points[:, [57, 66]].mean(axis=1), -0.04, 0.0), 0.1, 0.02), tone(face.lips, 1.18)),
        Shape(between(upper, lower), THROAT),
        Shape(between(upper, teeth), TEETH, strength=wide, ground=THROAT),
        Shape(between(tongue, lower), TONGUE, strength=(depth[:, 0, 0] > 0.24).astype(float)),
        Shape(upper, seam, line=0.035),
        Shape(outer_lower, tone(face.skin, 0.7, face.lips, 0.3), line=0.02),
    ]


def _resampled(outer: Array, inner: Array) -> Array:
    """Resample the inner curve to as many points as the outer, so that the two bound an area."""
    index = np.linspace(0, inner.shape[1] - 1, outer.shape[1]).round().astype(int)
    return inner[:, index]
