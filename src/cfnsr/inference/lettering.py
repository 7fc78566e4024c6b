"""Text on pictures: smooth, small, and in every script of the font, unlike OpenCV's own letters."""

from __future__ import annotations

from functools import cache, lru_cache
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.ft2font import FT2Font

RGB = tuple[int, int, int]
CEILING, FLOOR = 0.93, 0.24  # of the letters' height, above and below the base line
FONTS = {False: "DejaVuSans.ttf", True: "DejaVuSans-Bold.ttf"}  # part of matplotlib


class Letters(NamedTuple):
    """A line of text as a mask.

    Args:
        mask: (H, W) uint8, 255 where it is ink; W may be 0.
        rise: rows of it above the base line.
    """

    mask: NDArray[np.uint8]
    rise: int

    @property
    def width(self) -> int:
        """Width in pixels."""
        return int(self.mask.shape[1])


def line_height(size: int) -> int:
    """Pixels from one line to the next, of letters of `size` pixels."""
    return ceil(size * CEILING) + ceil(size * FLOOR)


@lru_cache(maxsize=1024)
def letters(text: str, size: int, *, bold: bool = False) -> Letters:
    """Draw a line of text, its letters `size` pixels high.

    >>> letters("happy", 20).width > letters("happy", 10).width > 20
    True
    """
    font = _font(bold)
    font.set_size(size, 72)
    font.set_text(text)
    font.draw_glyphs_to_bitmap(antialiased=True)
    mask = np.array(font.get_image(), np.uint8)
    if not text.strip():
        mask = np.zeros((1, round(font.get_width_height()[0] / 64)), np.uint8)
    return Letters(mask, mask.shape[0] - round(font.get_descent() / 64))


@cache
def _font(bold: bool) -> FT2Font:
    import matplotlib
    from matplotlib.ft2font import FT2Font

    return FT2Font(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / FONTS[bold]))


def write_text(
    picture: NDArray[np.uint8], text: str, x: int, y: int, size: int, colour: RGB, *, bold: bool = False
) -> None:
    """Write a line on a picture (H, W, 3) RGB, in place; (x, y) is the upper left corner of the line.

    What reaches beyond the picture is left out.
    """
    mask, rise = letters(text, size, bold=bold)
    top = y + ceil(size * CEILING) - rise
    height, width = mask.shape
    above, left = max(0, -top), max(0, -x)
    area = picture[top + above : max(0, top + height), x + left : max(0, x + width)]
    part = mask[above : above + area.shape[0], left : left + area.shape[1], None].astype(np.uint16)
    area[:] = (area * (255 - part) + np.array(colour, np.uint16) * part + 127) // 255
