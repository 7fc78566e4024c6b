"""The 68 landmarks of a face in the iBUG order, moved by action units.

Lengths are in distances between the pupils; x runs to the right of the picture, y down, from the nose's root.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cfnsr.synthesis.acting import ACTION_UNITS
from cfnsr.synthesis.cast import Face

Array = NDArray[np.float64]

JAW, BROWS, NOSE, EYES, MOUTH = slice(0, 17), slice(17, 27), slice(27, 36), slice(36, 48), slice(48, 68)
UPPER_LIDS, LOWER_LIDS = [37, 38, 43, 44], [41, 40, 47, 46]  # pairs above each other
LIP_TOP, UPPER_LIPS, LOWER_LIPS, LIP_BOTTOM = [50, 51, 52], [61, 62, 63], [67, 66, 65], [58, 57, 56]
THINNEST_LIP = 0.035
MOUTH_LINE = 1.18  # where the lips meet

# Landmarks and moves are written "number x y, ..." for the side left in the picture and the middle; the other
# side is its mirror image. The figures are drawn by eye after the proportions of a grown head.
_HALF = (
    "0 -1.1 -.05, 1 -1.1 .27, 2 -1.06 .58, 3 -.99 .88, 4 -.88 1.16, 5 -.71 1.42, "
    "6 -.5 1.64, 7 -.26 1.79, 8 0 1.84, "
    "17 -.9 -.3, 18 -.77 -.42, 19 -.58 -.45, 20 -.38 -.42, 21 -.2 -.36, "
    "27 0 -.03, 28 0 .2, 29 0 .43, 30 0 .65, 31 -.22 .77, 32 -.11 .81, 33 0 .84, "
    "36 -.73 .02, 37 -.58 -.1, 38 -.41 -.1, 39 -.27 .04, 40 -.41 .09, 41 -.58 .09, "
    "48 -.42 1.17, 49 -.25 1.09, 50 -.09 1.04, 51 0 1.06, 57 0 1.36, 58 -.11 1.35, "
    "59 -.27 1.29, "
    "60 -.36 1.17, 61 -.14 1.165, 62 0 1.175, 66 0 1.185, 67 -.14 1.18"
)

# Displacement of points by each action unit at intensity 5.
_MOVES = {
    1: "21 0 -.26, 20 0 -.18, 19 0 -.06, 38 0 -.02",
    2: "17 0 -.16, 18 0 -.25, 19 0 -.2, 20 0 -.06",
    4: "21 .09 .17, 20 .09 .14, 19 .06 .11, 18 .03 .05, 38 0 .03",
    5: "37 0 -.1, 38 0 -.1",
    6: "36 .02 -.01, 41 0 -.07, 40 0 -.06, 37 0 .02, 17 0 .03",
    7: "41 0 -.05, 40 0 -.05, 37 0 .05, 38 0 .05",
    9: "30 0 -.04, 31 -.02 -.08, 32 0 -.06, 33 0 -.05, 21 .05 .1, 20 .03 .06, 39 0 -.01, "
    "40 0 -.03, 41 0 -.02, 49 0 -.06, 50 0 -.08, 51 0 -.08, 61 0 -.03, 62 0 -.03",
    10: "49 -.03 -.1, 50 0 -.13, 51 0 -.12, 31 -.02 -.03, 61 0 -.11, 62 0 -.11, 48 0 .03, 60 0 .03",
    12: "48 -.2 -.17, 60 -.19 -.17, 49 -.11 -.08, 59 -.12 -.05, 50 -.03 0, 58 -.04 .02, "
    "61 -.05 0, 67 -.05 .01, 51 0 .03, 4 -.02 -.02, 5 -.02 -.02, 31 -.03 -.01",
    14: "48 -.06 -.01, 60 -.06 -.01",
    15: "48 -.02 .19, 60 -.02 .19, 49 0 .06, 59 0 .11, 58 0 .02, 61 0 .01, 67 0 .01",
    17: "57 0 -.09, 58 0 -.08, 59 0 -.04, 66 0 -.04, 67 0 -.03, 50 0 -.04, 51 0 -.05, "
    "61 0 -.04, 62 0 -.04, 8 0 -.05",
    20: "48 -.2 .06, 60 -.19 .06, 49 -.12 .02, 59 -.13 .05, 50 -.04 .02, 58 -.06 .03, "
    "61 -.06 0, 67 -.06 .04, 4 -.02 0, 5 -.03 0",
    23: "48 .04 .01, 60 .05 .01, 49 .02 .05, 50 0 .07, 51 0 .07, 57 0 -.09, 58 0 -.09, 59 .02 -.05",
    25: "61 0 -.05, 62 0 -.05, 66 0 .13, 67 0 .12, 50 0 -.03, 51 0 -.03, 57 0 .1, 58 0 .1, 59 0 .06",
    26: "66 0 .44, 67 .01 .42, 57 0 .43, 58 .01 .42, 59 .04 .28, 48 .05 .12, 60 .06 .13, "
    "61 .02 0, 49 .03 .02, 8 0 .38, 7 0 .37, 6 .01 .33, 5 .02 .24, 4 .02 .12, 3 0 .04",
}


def _mirror(index: int) -> int:
    """Index of the landmark of the other side; a point of the middle is its own."""
    if index < 17:
        return 16 - index
    if index < 27:
        return 43 - index
    if index < 31:
        return index
    if index < 36:
        return 66 - index
    if index < 48:
        return {36: 45, 37: 44, 38: 43, 39: 42, 40: 47, 41: 46}[index]
    if index < 55:
        return 102 - index
    if index < 60:
        return 114 - index
    return 124 - index if index < 65 else 132 - index


def _both_sides(half: str) -> Array:
    """Parse points or moves (68, 2) from the text of one side."""
    points = np.zeros((68, 2))
    for number, x, y in (entry.split() for entry in half.split(",") if entry):
        points[_mirror(int(number))] = (-float(x), float(y))
        points[int(number)] = (float(x), float(y))
    return points


AVERAGE = _both_sides(_HALF)
MOVES = np.stack([_both_sides(_MOVES.get(unit, "")) for unit in ACTION_UNITS])  # (17, 68, 2)


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

    >>> still = move(AVERAGE, np.zeros((2, 17)))
    >>> bool(np.allclose(still, AVERAGE))
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
