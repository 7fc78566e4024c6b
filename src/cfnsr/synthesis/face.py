"""A drawn face: 68 landmarks moved by action units, and coloured shapes laid over them like paper cuts.

Lengths are in distances between the pupils; x runs to the right of the picture, y down, from the nose's root.
Points are (frames, n, 2); of what keeps still on the head, (1, n, 2). All figures are drawn by eye.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

from cfnsr.synthesis.acting import ACTION_UNITS, Performance
from cfnsr.synthesis.cast import Colour, Face, Person

Array = NDArray[np.float64]
Intensities = Mapping[int, Array]  # of each action unit, (frames,), 0 to 1

# The iBUG order.
JAW, BROWS, NOSE, EYES, MOUTH = slice(0, 17), slice(17, 27), slice(27, 36), slice(36, 48), slice(48, 68)
UPPER_LIDS, LOWER_LIDS = [37, 38, 43, 44], [41, 40, 47, 46]  # pairs above each other
LEFT_EYE, RIGHT_EYE = [36, 37, 38, 39, 40, 41], [45, 44, 43, 42, 47, 46]  # from the outer corner round
LIP_TOP, UPPER_LIPS, LOWER_LIPS, LIP_BOTTOM = [50, 51, 52], [61, 62, 63], [67, 66, 65], [58, 57, 56]
MIRRORED = np.r_[16:-1:-1, 26:16:-1, 27:31, 35:30:-1, 45:41:-1, 47, 46, 39:35:-1, 41, 40]
MIRRORED = np.r_[MIRRORED, 54:47:-1, 59:54:-1, 64:59:-1, 67:64:-1]  # the landmark of the other side
THINNEST_LIP = 0.035
MOUTH_LINE = 1.18  # where the lips meet

# Landmarks and moves are written "number x y, ..." for the side left in the picture and the middle; the other
# side is its mirror image. The proportions are those of a grown head.
_HALF = (
    "0 -1.1 -.05, 1 -1.1 .27, 2 -1.06 .58, 3 -.99 .88, 4 -.88 1.16, 5 -.71 1.42, 6 -.5 1.64, 7 -.26 1.79, "
    "8 0 1.84, 17 -.9 -.3, 18 -.77 -.42, 19 -.58 -.45, 20 -.38 -.42, 21 -.2 -.36, 27 0 -.03, 28 0 .2, "
    "29 0 .43, 30 0 .65, 31 -.22 .77, 32 -.11 .81, 33 0 .84, 36 -.73 .02, 37 -.58 -.1, 38 -.41 -.1, "
    "39 -.27 .04, 40 -.41 .09, 41 -.58 .09, 48 -.42 1.17, 49 -.25 1.09, 50 -.09 1.04, 51 0 1.06, 57 0 1.36, "
    "58 -.11 1.35, 59 -.27 1.29, 60 -.36 1.17, 61 -.14 1.165, 62 0 1.175, 66 0 1.185, 67 -.14 1.18"
)
# Displacement of points by each action unit at intensity 5.
_MOVES = {
    1: "21 0 -.26, 20 0 -.18, 19 0 -.06, 38 0 -.02",
    2: "17 0 -.16, 18 0 -.25, 19 0 -.2, 20 0 -.06",
    4: "21 .09 .17, 20 .09 .14, 19 .06 .11, 18 .03 .05, 38 0 .03",
    5: "37 0 -.1, 38 0 -.1",
    6: "36 .02 -.01, 41 0 -.07, 40 0 -.06, 37 0 .02, 17 0 .03",
    7: "41 0 -.05, 40 0 -.05, 37 0 .05, 38 0 .05",
    9: "30 0 -.04, 31 -.02 -.08, 32 0 -.06, 33 0 -.05, 21 .05 .1, 20 .03 .06, 39 0 -.01, 40 0 -.03, "
    "41 0 -.02, 49 0 -.06, 50 0 -.08, 51 0 -.08, 61 0 -.03, 62 0 -.03",
    10: "49 -.03 -.1, 50 0 -.13, 51 0 -.12, 31 -.02 -.03, 61 0 -.11, 62 0 -.11, 48 0 .03, 60 0 .03",
    12: "48 -.2 -.17, 60 -.19 -.17, 49 -.11 -.08, 59 -.12 -.05, 50 -.03 0, 58 -.04 .02, 61 -.05 0, "
    "67 -.05 .01, 51 0 .03, 4 -.02 -.02, 5 -.02 -.02, 31 -.03 -.01",
    14: "48 -.06 -.01, 60 -.06 -.01",
    15: "48 -.02 .19, 60 -.02 .19, 49 0 .06, 59 0 .11, 58 0 .02, 61 0 .01, 67 0 .01",
    17: "57 0 -.09, 58 0 -.08, 59 0 -.04, 66 0 -.04, 67 0 -.03, 50 0 -.04, 51 0 -.05, 61 0 -.04, 62 0 -.04, "
    "8 0 -.05",
    20: "48 -.2 .06, 60 -.19 .06, 49 -.12 .02, 59 -.13 .05, 50 -.04 .02, 58 -.06 .03, 61 -.06 0, "
    "67 -.06 .04, 4 -.02 0, 5 -.03 0",
    23: "48 .04 .01, 60 .05 .01, 49 .02 .05, 50 0 .07, 51 0 .07, 57 0 -.09, 58 0 -.09, 59 .02 -.05",
    25: "61 0 -.05, 62 0 -.05, 66 0 .13, 67 0 .12, 50 0 -.03, 51 0 -.03, 57 0 .1, 58 0 .1, 59 0 .06",
    26: "66 0 .44, 67 .01 .42, 57 0 .43, 58 .01 .42, 59 .04 .28, 48 .05 .12, 60 .06 .13, 61 .02 0, "
    "49 .03 .02, 8 0 .38, 7 0 .37, 6 .01 .33, 5 .02 .24, 4 .02 .12, 3 0 .04",
}

# Outlines "x y, ...": behind the face from the left to the middle, before the face all the way round.
HAIR_BEHIND = {
    "long": "-.95 2.5, -1.38 2.2, -1.42 1, -1.4 0, -1.36 -.8, -1 -1.55, 0 -1.88",
    "bob": "-.7 1.35, -1.28 1.25, -1.45 .7, -1.4 0, -1.36 -.8, -1 -1.55, 0 -1.86",
    "bun": "-1 -.1, -1.2 -.3, -1.24 -.9, -.95 -1.5, -.6 -1.72, 0 -1.8",
    "short": "-1 .2, -1.18 -.1, -1.25 -.7, -1.1 -1.35, -.7 -1.75, 0 -1.86",
    "side": "-1 .2, -1.18 -.1, -1.27 -.7, -1.12 -1.4, -.7 -1.84, 0 -1.96",
    "crop": "-1 0, -1.14 -.2, -1.17 -.8, -1 -1.36, -.6 -1.62, 0 -1.7",
}
HAIR_BEFORE = {
    "long": "-1.2 .9, -1.24 0, -1.2 -.8, -.85 -1.5, 0 -1.78, .85 -1.5, 1.2 -.8, 1.24 0, 1.2 .9, 1.08 .3, "
    ".98 -.5, .4 -1.2, -.3 -1.3, -.98 -.5, -1.08 .3",
    "bob": "-1.24 1.1, -1.3 .2, -1.24 -.8, -.85 -1.5, 0 -1.78, .85 -1.5, 1.24 -.8, 1.3 .2, 1.24 1.1, "
    "1.1 .4, .98 -.6, .5 -1, -.2 -.98, -.98 -.6, -1.1 .4",
    "bun": "-1.1 -.2, -1.14 -.8, -.85 -1.4, 0 -1.7, .85 -1.4, 1.14 -.8, 1.1 -.2, 1 -.6, .7 -1.1, 0 -1.32, "
    "-.7 -1.1, -1 -.6",
    "short": "-1.1 0, -1.16 -.7, -.9 -1.45, 0 -1.8, .9 -1.45, 1.16 -.7, 1.1 0, 1.02 -.5, .85 -1.02, "
    "0 -1.16, -.85 -1.02, -1.02 -.5",
    "side": "-1.1 .1, -1.18 -.7, -.9 -1.5, 0 -1.9, .9 -1.5, 1.18 -.7, 1.1 .1, 1.02 -.5, .9 -.9, .2 -1.28, "
    "-.5 -1.2, -.95 -.8, -1.02 -.5",
    "crop": "-1.08 -.2, -1.1 -.8, -.85 -1.38, 0 -1.64, .85 -1.38, 1.1 -.8, 1.08 -.2, 1.03 -.6, .8 -1.16, "
    "0 -1.3, -.8 -1.16, -1.03 -.6",
}
GLOSS = "-.75 -1.3, -.45 -1.52, -.1 -1.6"
FOREHEAD = "1.09 -.45, .97 -.95, .66 -1.36, 0 -1.52, -.66 -1.36, -.97 -.95, -1.09 -.45"
EAR = "-1.06 -.1, -1.2 -.22, -1.3 -.02, -1.25 .36, -1.12 .6, -1.02 .5"
INNER_EAR = "-1.1 -.05, -1.19 -.1, -1.22 .05, -1.14 .35"
COVERS_EARS = ("long", "bob")
# Light falls from the upper left: rings of the face (size, brightness, shift), each nearer to the light.
LIGHT = ((1.0, 0.80, 0.0), (0.93, 0.90, -0.02), (0.84, 0.97, -0.05), (0.7, 1.01, -0.08))
BLOOD, FLUSH, BEARD = (190.0, 90.0, 80.0), (225.0, 110.0, 105.0), (80.0, 80.0, 90.0)
EYE_WHITE, EYE_SHADE, PUPIL = (238.0, 236.0, 232.0), (196.0, 192.0, 190.0), (12.0, 10.0, 10.0)
GLINT, BLACK = (250.0, 250.0, 250.0), (0.0, 0.0, 0.0)
TEETH, TONGUE, THROAT = (240.0, 236.0, 226.0), (186.0, 86.0, 88.0), (70.0, 22.0, 26.0)

PUPILS_APART = 0.2  # of the picture's height
EYES_AT = (0.5, 0.44)  # of the picture's width and height
SOFTNESS = 0.035  # blur of the skin's shading, in distances between the pupils
SUBPIXELS = 4  # bits of the fraction in OpenCV's drawing calls
NOSE_HEIGHT = np.zeros(68)  # of the landmarks above the round of the face
NOSE_HEIGHT[NOSE] = (0.06, 0.16, 0.27, 0.36, 0.14, 0.20, 0.24, 0.20, 0.14)
PIVOT = (1.2, -0.6)  # y and height of the neck, about which the head turns


def _numbers(text: str) -> Array:
    """Rows of numbers out of "a b, c d"."""
    return np.array([row.split() for row in text.split(",")], dtype=float)


def _both_sides(half: str) -> Array:
    """Parse points or moves (68, 2) from the text of one side."""
    points = np.zeros((68, 2))
    for number, x, y in _numbers(half):
        points[MIRRORED[int(number)]] = (-x, y)
        points[int(number)] = (x, y)
    return points


AVERAGE = _both_sides(_HALF)
MOVES = np.stack([_both_sides(_MOVES.get(unit, "0 0 0")) for unit in ACTION_UNITS])  # (17, 68, 2)


def at_rest(face: Face) -> Array:
    """Landmarks (68, 2) of one person's face at rest."""
    points = AVERAGE.copy()
    x, y = points[:, 0], points[:, 1]
    x[JAW] *= face.width * (1.0 + (face.jaw - 1.0) * np.clip(y[JAW], 0.0, 1.4))
    y[JAW] = np.where(y[JAW] > 0.8, 0.8 + (y[JAW] - 0.8) * face.chin, y[JAW])
    x[BROWS] *= face.width
    y[BROWS] *= face.brow_height
    y[NOSE] *= face.nose_length
    x[NOSE] *= face.nose_width
    centres = np.repeat([[-0.5, 0.0], [0.5, 0.0]], 6, axis=0)
    points[EYES] = centres * face.eye_gap + (points[EYES] - centres) * face.eye_size
    lips = points[MOUTH]
    lips[:, 0] *= face.mouth_width
    lips[:12, 1] = MOUTH_LINE + (lips[:12, 1] - MOUTH_LINE) * face.lip_weight
    return points


def move(rest: Array, units: Array) -> Array:
    """Landmarks (frames, 68, 2) of a face at rest (68, 2) under intensities (frames, 17) of `ACTION_UNITS`.

    >>> bool(np.allclose(move(AVERAGE, np.zeros((2, 17))), AVERAGE))
    True
    """
    points = rest + np.tensordot(units / 5.0, MOVES, axes=1)
    closed = units[:, ACTION_UNITS.index(45), None] / 5.0
    upper, lower = points[:, UPPER_LIDS, 1], points[:, LOWER_LIDS, 1]
    points[:, UPPER_LIDS, 1] = np.minimum(upper + closed * (lower - upper), lower - 0.01)
    # lips that are pressed together meet; they do not cross
    points[:, LOWER_LIPS, 1] = np.maximum(points[:, LOWER_LIPS, 1], points[:, UPPER_LIPS, 1] + 0.005)
    upper_edge, lower_edge = points[:, UPPER_LIPS, 1] - THINNEST_LIP, points[:, LOWER_LIPS, 1] + THINNEST_LIP
    points[:, LIP_TOP, 1] = np.minimum(points[:, LIP_TOP, 1], upper_edge)
    points[:, LIP_BOTTOM, 1] = np.maximum(points[:, LIP_BOTTOM, 1], lower_edge)
    return points


@dataclass(frozen=True)
class Shape:
    """One piece of paper.

    Args:
        points: its corners.
        colour: RGB.
        opacity: (frames,) of the colour over `ground`, 0 to 1; below 0.06 it is left out. None for 1.
        ground: the colour beneath.
        line: width; 0 for a filled shape.
        raised: height above the round of the face, which turning makes visible.
    """

    points: Array
    colour: Colour
    opacity: Array | None = None
    ground: Colour = BLACK
    line: float = 0.0
    raised: float = 0.0


def paint(
    person: Person, performance: Performance, size: tuple[int, int], rng: np.random.Generator
) -> tuple[Array, Iterator[NDArray[np.uint8]]]:
    """Return landmarks in pixels (frames, 68, 2), and pictures (H, W, 3) uint8 RGB, painted when iterated.

    Args:
        size: (width, height) of the picture in pixels.
        rng: the take's own generator, for the grain of the background.
    """
    face = person.face
    points = move(at_rest(face), performance.units)
    unit = dict(zip(ACTION_UNITS, performance.units.T / 5.0, strict=True))
    soft = [*_hair_behind(face), *_ears(face), *_skin(face, points, unit)]
    crisp = [*_creases(face, points, unit), *_nose(face, points)]
    for eye in (LEFT_EYE, RIGHT_EYE):
        crisp += _eye(face, points[:, eye], performance.gaze, unit)
    crisp += [*_brows(face, points), *_mouth(face, points), *_hair_before(face)]
    ground = _backdrop(face, size, rng)  # drawn from the generator now, not when the pictures are asked for
    landmarks = _project(points, NOSE_HEIGHT, performance, size)
    return landmarks, _frames(ground, [*soft, *crisp], len(soft), performance, size)


def _frames(
    ground: NDArray[np.uint8], shapes: list[Shape], soft: int, performance: Performance, size: tuple[int, int]
) -> Iterator[NDArray[np.uint8]]:
    """Paint each frame: the first `soft` shapes are blurred before the others are laid on them."""
    unit = PUPILS_APART * size[1]
    softness = SOFTNESS * unit
    reach = 2 * round(1.5 * softness) + 1
    counts = [shape.points.shape[1] for shape in shapes]
    # all shapes turn with the head at once: one array is far quicker than eighty
    points = joined(*(shape.points for shape in shapes))
    raised = np.repeat([shape.raised for shape in shapes], counts)
    corners = _subpixels(_project(points, raised, performance, size))
    pieces = np.split(corners, np.cumsum(counts)[:-1], axis=1)
    for frame in range(len(points)):
        picture = ground.copy()
        for place, (shape, piece) in enumerate(zip(shapes, pieces, strict=True)):
            if place == soft:
                picture = np.asarray(cv2.GaussianBlur(picture, (reach, reach), softness), dtype=np.uint8)
            opacity = 1.0 if shape.opacity is None else float(np.clip(shape.opacity[frame], 0.0, 1.0))
            if opacity <= 0.06:
                continue
            mixed = (opacity * np.array(shape.colour) + (1 - opacity) * np.array(shape.ground)).tolist()
            if shape.line:
                width = max(1, round(shape.line * unit))
                cv2.polylines(picture, [piece[frame]], False, mixed, width, cv2.LINE_AA, SUBPIXELS)
            else:
                cv2.fillPoly(picture, [piece[frame]], mixed, cv2.LINE_AA, SUBPIXELS)
        yield picture


def _project(points: Array, raised: Array, performance: Performance, size: tuple[int, int]) -> Array:
    """Turn points with the head, `raised` (n,) above its round, to pixels (frames, n, 2)."""
    pitch, yaw, roll = (angle[:, None] for angle in performance.rotation.T)
    x, y = points[..., 0], points[..., 1]
    z = 0.85 - 0.7 * np.minimum(np.square(x / 1.1), 1.4) - 0.12 * np.square(np.clip(y - 0.4, -2, 2))
    y, z = y - PIVOT[0], z + raised - PIVOT[1]
    x, z = x * np.cos(yaw) + z * np.sin(yaw), z * np.cos(yaw) - x * np.sin(yaw)
    y = y * np.cos(pitch) - z * np.sin(pitch)
    x, y = x * np.cos(roll) - y * np.sin(roll), x * np.sin(roll) + y * np.cos(roll)
    turned = np.stack([x, y + PIVOT[0]], axis=-1) * performance.scale[:, None, None]
    unit = PUPILS_APART * size[1]
    return np.asarray((turned + performance.shift[:, None]) * unit + np.array(EYES_AT) * size)


def _subpixels(pixels: Array) -> NDArray[np.int32]:
    return np.asarray(np.round(pixels * 2**SUBPIXELS), np.int32)


def _backdrop(face: Face, size: tuple[int, int], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Paint wall, neck and shoulders (H, W, 3), which hardly move."""
    width, height = size
    x, y = np.meshgrid(np.linspace(-1, 1, width), np.linspace(-1, 1, height))
    light = 1.0 - 0.16 * (x + 0.25) ** 2 - 0.10 * (y + 0.2) ** 2
    coarse = rng.normal(0.0, 4.0, (height // 16 + 1, width // 16 + 1))
    cloth = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    wall = np.array(face.background) * light[..., None] + cloth[..., None]
    picture = np.clip(wall, 0, 255).astype(np.uint8)

    def fill(outline: Array, colour: Colour) -> None:
        corners = _subpixels(outline * (PUPILS_APART * height) + np.array(EYES_AT) * size)
        cv2.fillPoly(picture, [corners], colour, cv2.LINE_AA, SUBPIXELS)

    for left, colour in (
        ("-3.2 4, -3 3.05, -2.3 2.62, -1.2 2.32, -.62 2.12", face.shirt),
        ("-.62 1, -.6 1.8, -.7 2.2, -.3 2.55", tone(face.skin, 0.80)),
    ):
        half = _numbers(left)[None]
        fill(curve(joined(half, half[:, ::-1] * (-1, 1)))[0], colour)
    shade = _numbers("-.62 1.2, -.58 1.9, 0 2.15, .58 1.9, .62 1.2")
    fill(curve(shade[None])[0], tone(face.skin, 0.66))
    collar = _numbers(".72 2.05, .98 2.3, .28 2.85, .22 2.62")
    for side in (-1, 1):
        fill(collar * (side, 1), tone(face.shirt, 1.18))
    return picture


def _drawn(text: str, face: Face) -> Array:
    """Parse an outline (1, n, 2) as wide as the face."""
    return _numbers(text)[None] * (face.width, 1.0)


def _hair_behind(face: Face) -> list[Shape]:
    half = _drawn(HAIR_BEHIND[face.hair_style], face)
    whole = curve(joined(half, half[:, -2::-1] * (-1, 1)))
    bun = Shape(oval(np.array([[0.1, -1.9]]), 0.42, 0.34), face.hair, raised=-0.9)
    return [bun] * (face.hair_style == "bun") + [Shape(whole, tone(face.hair, 0.8), raised=-0.7)]


def _hair_before(face: Face) -> list[Shape]:
    """Hair over forehead and temples, above all else."""
    outline = _drawn(HAIR_BEFORE[face.hair_style], face)
    gloss = tone(face.hair, 1.25, (255, 255, 255), 0.06)
    return [
        Shape(curve(joined(outline, outline[:, :1])), face.hair, raised=-0.1),
        Shape(curve(_drawn(GLOSS, face)), gloss, line=0.06, raised=-0.1),
    ]


def _ears(face: Face) -> list[Shape]:
    if face.hair_style in COVERS_EARS:
        return []
    parts = ((EAR, tone(face.skin, 0.86, BLOOD, 0.08)), (INNER_EAR, tone(face.skin, 0.66)))
    outlines = [(curve(_drawn(text, face)), colour) for text, colour in parts]
    return [Shape(ear * (side, 1), colour, raised=-0.5) for ear, colour in outlines for side in (1, -1)]


def _skin(face: Face, points: Array, unit: Intensities) -> list[Shape]:
    """Skin with its light and shade."""
    skin = face.skin
    edge = curve(joined(points[:, JAW], _drawn(FOREHEAD, face), points[:, :1]))
    shapes = []
    for size, brightness, shift in LIGHT:
        ring = edge * size + np.array([shift, 0.30]) * (1 - size)
        shapes.append(Shape(shifted(ring, shift, 0.0), tone(skin, brightness)))
    if face.stubble:
        beard = joined(points[:, 3:14], shifted(points[:, [54, 52, 51, 50, 48]], 0.0, -0.08))
        beard = shifted(beard * (0.95, 0.97), 0.0, 0.03)
        around = oval(points[:, [48, 54, 57]].mean(axis=1), 0.5, 0.26)
        for outline, brightness, amount in ((beard, 0.9, face.stubble), (around, 0.96, face.stubble * 0.4)):
            shapes.append(Shape(outline, tone(skin, brightness, BEARD, amount)))
    shapes.append(Shape(oval(np.array([[-0.12, -0.82]]), 0.5, 0.24), tone(skin, 1.05)))
    smile = np.maximum(unit[6], unit[12])
    for corner, lid, brow, sign in ((36, 41, 19, -1.0), (45, 46, 24, 1.0)):
        middle = points[:, [corner, lid, brow], 1].mean(axis=1)
        socket = oval(pairs(sign * 0.47 * face.eye_gap, middle + 0.05), 0.36, 0.22)
        shapes.append(Shape(socket, tone(skin, 0.89, (150, 80, 80), 0.05)))
        cheek = oval(pairs(sign * 0.62, 0.64 - 0.08 * unit[6] - 0.05 * unit[12]), 0.27 + 0.05 * unit[6], 0.19)
        shapes.append(Shape(cheek, tone(skin, 1.06, FLUSH, 1.0), 0.10 + 0.16 * smile, tone(skin, 1.03)))
    tip = points[:, [30]]
    ridge = between(shifted(points[:, 27:31], -0.07, 0.0), shifted(points[:, 27:31], 0.04, 0.0))
    ball = joined(points[:, 31:36] * (1.18, 1.0), shifted(tip, 0.16, 0.0), shifted(tip, -0.16, 0.0))
    return [
        *shapes,
        Shape(points[:, [27, 28, 29, 30, 35, 42]], tone(skin, 0.87), raised=0.1),
        Shape(ridge, tone(skin, 1.07), raised=0.1),
        Shape(ball, tone(skin, 0.9, BLOOD, 0.08), raised=0.15),
        Shape(oval(shifted(points[:, 30], -0.03, 0.02), 0.10, 0.08), tone(skin, 1.1), raised=0.2),
        Shape(oval(shifted(points[:, 57], 0.0, 0.09), 0.24, 0.05), tone(skin, 0.8)),
        Shape(oval(shifted(points[:, 8], -0.03, -0.17), 0.2, 0.1), tone(skin, 1.05)),
    ]


def _creases(face: Face, points: Array, unit: Intensities) -> list[Shape]:
    """Folds that action units press into the skin."""
    fold = tone(face.skin, 0.60, (120, 50, 50), 0.10)
    shapes: list[Shape] = []

    def crease(line: Array, opacity: Array, width: float = 0.035, *, both: bool = True) -> None:
        for side in (1, -1) if both else (1,):
            shapes.append(Shape(curve(line * (side, 1)), fold, opacity, face.skin, line=width))

    brow, outer, wing, corner = (points[:, [place]] for place in (21, 36, 31, 48))
    lift = (points[:, 19:22] - AVERAGE[19:22])[..., 1].mean(axis=1)  # of the raised part of the brow
    across = _numbers("-.6 .02, -.3 -.03, 0 .02, .3 -.03, .6 .02")
    for height in (-0.68, -0.83, -0.98):
        forehead = pairs(across[:, 0], (height + 0.5 * np.minimum(lift, 0.0))[:, None] + across[:, 1])
        crease(forehead, 0.9 * np.maximum(unit[1], unit[2]) - 0.25, both=False)
    frown = brow + _numbers(".07 -.12, .1 .02, .08 .16")
    crease(frown, 1.3 * np.maximum(unit[4], 0.8 * unit[9]) - 0.25, 0.045)
    for height in (0.06, 0.17, 0.28):
        bridge = np.array([[(-0.14, height - 0.05), (0.0, height), (0.14, height - 0.05)]])
        crease(bridge, 1.3 * unit[9] - 0.2, both=False)
    for slope in (-0.10, 0.0, 0.10):
        crow = outer + np.array([(-0.05, slope * 0.5), (-0.22, slope * 1.6)])
        crease(crow, 1.1 * unit[6] - 0.2)
    bag = points[:, [36, 41, 40, 39]] + _numbers(".03 .07, 0 .09, 0 .09, -.04 .06")
    crease(bag, 0.12 + 0.8 * np.maximum(unit[6], 0.8 * unit[7]))
    middle = shifted(0.5 * (wing + corner), -0.19, -0.06)
    round_mouth = joined(shifted(wing, -0.09, -0.05), middle, shifted(corner, -0.17, -0.02))
    crease(round_mouth, 0.15 + 0.8 * np.maximum.reduce([unit[12], unit[10], unit[9], 0.4 * unit[20]]), 0.04)
    crease(corner + _numbers("-.03 .03, -.08 .12, -.08 .24"), 1.1 * unit[15] - 0.1, 0.04)
    crease(corner + _numbers("-.09 -.12, -.12 0, -.09 .13"), 1.0 * unit[20] - 0.2)
    chin = shifted(points[:, [57]], 0.0, 0.16) + _numbers("-.15 .05, 0 -.01, .15 .05")
    crease(chin, 1.2 * unit[17] - 0.1, both=False)
    return shapes


def _nose(face: Face, points: Array) -> list[Shape]:
    shadow = tone(face.skin, 0.45, (90, 30, 30), 0.15)
    soft = tone(face.skin, 0.66, (120, 50, 50), 0.1)
    wing = _numbers("-.01 -.15, -.07 -.04, 0 .03")
    wings = (curve(points[:, [31]] + wing), curve(points[:, [35]] + wing * (-1, 1)))
    holes = (oval(shifted(points[:, 33 + side], 0.02 * side, -0.015), 0.065, 0.03, 12) for side in (-1, 1))
    return [
        *(Shape(each, soft, line=0.03, raised=0.12) for each in wings),
        Shape(curve(points[:, 31:36]), tone(face.skin, 0.74), line=0.03, raised=0.15),
        *(Shape(each, shadow, raised=0.15) for each in holes),
    ]


def _eye(face: Face, eye: Array, gaze: Array, unit: Intensities) -> list[Shape]:
    """Shapes of one eye from six landmarks: outer corner, two of the upper lid, inner corner, two lower."""
    upper, lower = curve(eye[:, [0, 1, 2, 3]]), curve(eye[:, [0, 5, 4, 3]])
    crease = eye[:, :3] + _numbers("0 -.07, 0 -.08, 0 -.08")
    crease[:, :, 1] = np.minimum(crease[:, :, 1], -0.13 - 0.06 * unit[5][:, None] + 0.05 * unit[4][:, None])
    shapes = [
        Shape(curve(crease), tone(face.skin, 0.68), line=0.03),
        Shape(between(upper, lower), EYE_WHITE),
        Shape(between(upper, upper * 0.75 + lower * 0.25), EYE_SHADE),
    ]
    radius = 0.145 * face.eye_size
    centre = shifted(eye[:, [0, 3]].mean(axis=1), 0.0, -0.025) + gaze
    for size, colour in ((1.0, tone(face.eyes, 0.6)), (0.8, face.eyes), (0.42, PUPIL)):
        iris = oval(centre, size * radius, size * radius, 18)
        shapes.append(Shape(_within(iris, upper, lower), colour))
    lash = tone(face.hair, 0.35)
    shapes += [
        Shape(_within(oval(shifted(centre, -0.05, -0.05), 0.032, 0.032, 10), upper, lower), GLINT),
        Shape(lower, tone(face.skin, 0.55), line=0.02),
        Shape(upper, lash, line=0.06 if face.lashes else 0.045),
    ]
    if face.lashes:
        side = float(np.sign(eye[0, 3, 0] - eye[0, 0, 0]))
        flick = eye[:, [0]] + np.array([(0.0, 0.0), (-0.07 * side, -0.05)])
        shapes.append(Shape(flick, lash, line=0.04))
    return shapes


def _within(disc: Array, upper: Array, lower: Array) -> Array:
    """Cut a disc by the lids: its points held between two curves with the same corners."""
    start, stop = upper[:, :1, 0], upper[:, -1:, 0]
    place = (disc[..., 0] - start) / (stop - start) * (upper.shape[1] - 1)
    index = np.clip(np.floor(place).astype(int), 0, upper.shape[1] - 2)
    part = np.clip(place - index, 0.0, 1.0)

    def height(lid: Array) -> Array:
        left, right = (np.take_along_axis(lid[..., 1], at, axis=1) for at in (index, index + 1))
        return np.asarray(left * (1 - part) + right * part)

    return pairs(disc[..., 0], np.clip(disc[..., 1], height(upper), height(lower)))


def _brows(face: Face, points: Array) -> list[Shape]:
    weight = np.array([0.012, 0.045, 0.06, 0.065, 0.055])[:, None] * face.brow_weight * (0.0, 1.0)
    return [
        Shape(between(curve(brow - weight), curve(brow + weight)), tone(face.hair, 0.62))
        for brow in (points[:, 17:22], points[:, 26:21:-1])
    ]


def _mouth(face: Face, points: Array) -> list[Shape]:
    outer_upper, outer_lower = curve(points[:, 48:55], 3), curve(points[:, [48, 59, 58, 57, 56, 55, 54]], 3)
    upper, lower = curve(points[:, 60:65]), curve(points[:, [60, 67, 66, 65, 64]])
    lower[..., 1] = np.maximum(lower[..., 1], upper[..., 1])
    gap = (lower - upper) * (0.0, 1.0)
    depth = gap[..., 1:].max(axis=1, keepdims=True)
    teeth = upper + np.minimum(0.13, 0.62 * gap[..., 1:]) * (0.0, 1.0)
    teeth_seen = np.clip((depth[:, 0, 0] - 0.05) / 0.08, 0.0, 1.0)
    tongue = lower - gap * np.clip(depth - 0.2, 0.0, 0.35)
    tongue_seen = (depth[:, 0, 0] > 0.24).astype(float)
    # as many points of the inner curve as the outer one has, so that the two bound an area
    inner = upper[:, np.linspace(0, upper.shape[1] - 1, outer_upper.shape[1]).round().astype(int)]
    shine = oval(shifted(points[:, [57, 66]].mean(axis=1), -0.04, 0.0), 0.1, 0.02)
    return [
        Shape(between(outer_upper, outer_lower), face.lips),
        Shape(between(outer_upper, inner), tone(face.lips, 0.84)),
        Shape(shine, tone(face.lips, 1.18)),
        Shape(between(upper, lower), THROAT),
        Shape(between(upper, teeth), TEETH, teeth_seen, THROAT),
        Shape(between(tongue, lower), TONGUE, tongue_seen),
        Shape(upper, tone(face.lips, 0.42), line=0.035),
        Shape(outer_lower, tone(face.skin, 0.7, face.lips, 0.3), line=0.02),
    ]


def curve(points: Array, steps: int = 4) -> Array:
    """Interpolate a smooth curve (frames, m, 2) through points (frames, n, 2)."""
    return np.asarray(_spline(points.shape[1], steps) @ points)


@cache
def _spline(knots: int, steps: int) -> Array:
    """Matrix ((knots - 1) * steps + 1, knots) that draws a Catmull-Rom curve through its knots."""
    t = np.arange(steps) / steps
    weights = (-t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, -(t**2) + t**3)
    matrix = np.zeros(((knots - 1) * steps + 1, knots))
    for segment in range(knots - 1):
        rows = slice(segment * steps, (segment + 1) * steps)
        for offset, weight in enumerate(weights):
            matrix[rows, np.clip(segment + offset - 1, 0, knots - 1)] += 0.5 * weight
    matrix[-1, -1] = 1.0
    return matrix


def oval(centre: Array, width: Array | float, height: Array | float, corners: int = 20) -> Array:
    """Ovals (frames, corners, 2) about centres (frames, 2), of half axes given a frame or for all."""
    angle = np.linspace(0.0, 2.0 * np.pi, corners, endpoint=False)
    ring = pairs(width, height)[..., None, :] * pairs(np.cos(angle), np.sin(angle))
    return np.asarray(centre[:, None] + ring)


def joined(*curves: Array) -> Array:
    """One curve through the points of several."""
    frames = max(map(len, curves))
    return np.concatenate([np.broadcast_to(each, (frames, *each.shape[1:])) for each in curves], axis=1)


def between(first: Array, second: Array) -> Array:
    """Area between two curves that run the same way."""
    return joined(first, second[:, ::-1])


def shifted(points: Array, x: float, y: float) -> Array:
    """Shift points."""
    return np.asarray(points + np.array([x, y]))


def pairs(x: Array | float, y: Array | float) -> Array:
    """Points (..., 2) of these coordinates."""
    return np.stack(np.broadcast_arrays(x, y), axis=-1)


def tone(colour: Colour, factor: float, towards: Colour = BLACK, amount: float = 0.0) -> Colour:
    """Make a colour brighter or darker by a factor, and mix some of another in."""
    mixed = (1 - amount) * factor * np.array(colour) + amount * np.array(towards)
    red, green, blue = np.clip(mixed, 0.0, 255.0).tolist()
    return (red, green, blue)
