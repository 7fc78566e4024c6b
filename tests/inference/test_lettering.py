"""Text upon pictures."""

import numpy as np
import pytest

from cfnsr.inference.lettering import letters, line_height, write_text


@pytest.mark.parametrize("size", [11, 20, 48])
def test_letters_have_their_size_and_stay_in_their_line(size: int) -> None:
    picture = np.zeros((4 * size, 20 * size, 3), np.uint8)
    write_text(picture, "Ängstlich", size, size, size, (255, 255, 255))
    rows, columns = np.nonzero(picture.any(axis=2))
    assert rows.min() >= size and rows.max() < size + line_height(size)
    assert columns.min() >= size - 1
    assert columns.max() - columns.min() + 1 == pytest.approx(letters("Ängstlich", size).width, abs=2)
    assert 0.8 * size < rows.max() - rows.min() < 1.3 * size
    assert picture.max() > 200, "thin strokes are still seen"


def test_lines_share_a_base_line() -> None:
    """An x stands as high beside a p as beside an l."""
    feet, first = [], slice(10, 10 + letters("x", 30).width)
    for text, columns in (("x", first), ("xp", first), ("xl", first), ("Äx", slice(34, 120))):
        picture = np.zeros((60, 120, 3), np.uint8)
        write_text(picture, text, 10, 10, 30, (255, 255, 255))
        feet.append(int(np.flatnonzero((picture[:, columns, 0] > 128).any(axis=1)).max()))
    assert max(feet) - min(feet) <= 1


def test_colour_and_ground() -> None:
    picture = np.full((40, 200, 3), 100, np.uint8)
    write_text(picture, "happy", 5, 5, 24, (200, 40, 10), bold=True)
    assert (picture == (200, 40, 10)).all(axis=2).any()
    assert (picture[30:] == 100).all() or (picture[34:] == 100).all()
    assert picture[..., 0].min() == 100 and picture[..., 2].max() == 100, "between the two, never beyond"


@pytest.mark.parametrize(
    ("x", "y"), [(-30, 5), (190, 5), (5, -12), (5, 35), (-900, 0), (900, 900), (0, -900)]
)
def test_what_reaches_beyond_is_left_out(x: int, y: int) -> None:
    large = np.zeros((1000, 2400, 3), np.uint8)
    write_text(large, "surprised", 1000 + x, 500 + y, 20, (255, 255, 255))
    small = np.zeros((40, 200, 3), np.uint8)
    write_text(small, "surprised", x, y, 20, (255, 255, 255))
    np.testing.assert_array_equal(small, large[500:540, 1000:1200])


def test_other_scripts_and_nothing() -> None:
    def mask(text: str) -> bytes:
        return letters(text, 20).mask.tobytes()

    assert len({mask("ä"), mask("ж"), mask("λ"), mask("a")}) == 4
    assert letters("", 20).width == 0
    assert letters(" ", 20).width > 0
