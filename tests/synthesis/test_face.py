"""Action units move the landmarks that they are known to move."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cfnsr.synthesis.acting import ACTION_UNITS
from cfnsr.synthesis.cast import cast
from cfnsr.synthesis.face import AVERAGE, MIRRORED, at_rest, move


@pytest.mark.parametrize(
    ("unit", "point", "axis", "sign"),
    [
        (1, 21, 1, -1),  # inner brow up
        (2, 18, 1, -1),  # outer brow up
        (4, 21, 1, +1),  # brow down
        (5, 37, 1, -1),  # upper lid up
        (6, 41, 1, -1),  # lower lid up
        (9, 31, 1, -1),  # nose wing up
        (10, 51, 1, -1),  # upper lip up
        (12, 48, 0, -1),  # corner of the mouth out
        (12, 48, 1, -1),  # and up
        (15, 48, 1, +1),  # corner down
        (17, 57, 1, -1),  # lower lip up
        (20, 48, 0, -1),  # corner out
        (26, 8, 1, +1),  # chin down
        (45, 37, 1, +1),  # upper lid down
    ],
)
def test_unit_moves_its_point(unit: int, point: int, axis: int, sign: int) -> None:
    units = np.zeros((2, len(ACTION_UNITS)))
    units[:, ACTION_UNITS.index(unit)] = 2.5, 5.0
    half, full = sign * (move(AVERAGE, units) - AVERAGE)[:, point, axis]
    assert full > 0.02 and full > abs(half)


def test_a_blink_closes_the_eye() -> None:
    points = move(AVERAGE, 5.0 * np.eye(len(ACTION_UNITS))[[ACTION_UNITS.index(45)]])[0]
    np.testing.assert_allclose(points[[37, 38], 1], points[[41, 40], 1], atol=0.02)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.floats(0, 5), min_size=17, max_size=17), st.integers(1, 40))
def test_no_face_is_broken(units: list[float], actor: int) -> None:
    points = move(at_rest(cast(actor, seed=0).face), np.array([units]))[0]
    assert (points[[37, 38, 43, 44], 1] <= points[[41, 40, 47, 46], 1]).all(), "lids crossed"
    inner_upper, inner_lower = points[[61, 62, 63], 1], points[[67, 66, 65], 1]
    assert (points[[50, 51, 52], 1] < inner_upper).all() and (inner_upper < inner_lower).all()
    assert (inner_lower < points[[58, 57, 56], 1]).all(), "lips crossed"
    np.testing.assert_allclose(points[MIRRORED], points * (-1, 1), atol=1e-9)
    np.testing.assert_allclose(points[48, 0], -points[54, 0], atol=1e-9)
