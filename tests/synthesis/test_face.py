"""Action units move the landmarks that they are known to move."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cfnsr.synthesis.acting import ACTION_UNITS
from cfnsr.synthesis.cast import cast
from cfnsr.synthesis.face import AVERAGE, at_rest, move


def moved(**intensities: float) -> NDArray[np.float64]:
    """The average face under units named `au12=5.0`, less the face at rest; (68, 2)."""
    units = np.zeros((1, len(ACTION_UNITS)))
    for name, value in intensities.items():
        units[0, ACTION_UNITS.index(int(name[2:]))] = value
    return move(AVERAGE, units)[0] - AVERAGE


@pytest.mark.parametrize(
    ("unit", "point", "axis", "sign"),
    [
        ("au1", 21, 1, -1),  # inner brow up
        ("au2", 18, 1, -1),  # outer brow up
        ("au4", 21, 1, +1),  # brow down
        ("au5", 37, 1, -1),  # upper lid up
        ("au6", 41, 1, -1),  # lower lid up
        ("au9", 31, 1, -1),  # nose wing up
        ("au10", 51, 1, -1),  # upper lip up
        ("au12", 48, 0, -1),  # corner of the mouth out
        ("au12", 48, 1, -1),  # and up
        ("au15", 48, 1, +1),  # corner down
        ("au17", 57, 1, -1),  # lower lip up
        ("au20", 48, 0, -1),  # corner out
        ("au26", 8, 1, +1),  # chin down
        ("au45", 37, 1, +1),  # upper lid down
    ],
)
def test_unit_moves_its_point(unit: str, point: int, axis: int, sign: int) -> None:
    assert sign * moved(**{unit: 5.0})[point, axis] > 0.02
    assert abs(moved(**{unit: 2.5})[point, axis]) < abs(moved(**{unit: 5.0})[point, axis])


def test_a_blink_closes_the_eye() -> None:
    points = AVERAGE + moved(au45=5.0)
    np.testing.assert_allclose(points[[37, 38], 1], points[[41, 40], 1], atol=0.02)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.floats(0, 5), min_size=17, max_size=17), st.integers(1, 40))
def test_no_face_is_broken(units: list[float], actor: int) -> None:
    points = move(at_rest(cast(actor, seed=0).face), np.array([units]))[0]
    assert (points[[37, 38, 43, 44], 1] <= points[[41, 40, 47, 46], 1]).all(), "lids crossed"
    inner_upper, inner_lower = points[[61, 62, 63], 1], points[[67, 66, 65], 1]
    assert (points[[50, 51, 52], 1] < inner_upper).all() and (inner_upper < inner_lower).all()
    assert (inner_lower < points[[58, 57, 56], 1]).all(), "lips crossed"
    np.testing.assert_allclose(points[48, 0], -points[54, 0], atol=1e-9)  # both sides alike
