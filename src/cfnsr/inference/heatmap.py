"""A map of weights drawn over the pictures it is of."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from cfnsr.errors import InputError

Floats = NDArray[np.float64]
Centres = Sequence[Floats]

COLOURS = "viridis"  # the larger the weight the lighter; distinct for the colour-blind
OPACITY = 0.75  # of the colour at the largest weight; where there is none the picture shows
LEAST_SCALE = 2.0  # times the uniform weight, at the end of the scale: a uniform map is to look uniform
LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # of RGB (ITU-R BT.601)


def upsampled(places: NDArray[np.floating], shape: Sequence[int], centres: Centres | None = None) -> Floats:
    """Interpolate a map (T', H', W') at every pixel of frames (T, H, W), linearly along each axis.

    Beyond the outermost centres their weight goes on. The result sums to 1; a uniform map stays uniform.

    Args:
        places: weights that sum to 1.
        shape: frames, height and width.
        centres: of the places along each axis, from 0 to 1, see `Block.centres`; if not given, in the middle
            of equal parts.

    >>> upsampled(np.array([[[0.25, 0.75]]]), (1, 1, 4))
    array([[[0.125 , 0.1875, 0.3125, 0.375 ]]])
    """
    along = [_interpolation(*axis) for axis in zip(shape, _centres(places, centres), strict=True)]
    values = np.einsum("ti,hj,wk,ijk->thw", *along, places.astype(np.float64), optimize=True)
    shares: Floats = values / values.sum()
    return shares


def heatmap(
    frames: NDArray[np.uint8],
    places: NDArray[np.floating],
    *,
    centres: Centres | None = None,
    scale: float | None = None,
) -> NDArray[np.uint8]:
    """Draw a map (T', H', W') over frames (T, H, W, 3): the larger the weight, the lighter and stronger.

    The pictures are drawn in grey, so that a colour is always a weight.

    Args:
        frames: uint8 RGB, what the map is of.
        places: weights that sum to 1.
        centres: see `upsampled`.
        scale: the weight that is drawn the strongest, in multiples of the uniform weight; if not given the
            largest one, but no less than 2, so that weights that are almost uniform look so.

    Raises:
        InputError: frames of another shape or type.
    """
    if frames.ndim != 4 or frames.shape[3] != 3 or frames.dtype != np.uint8:
        raise InputError(
            f"frames are {frames.dtype} of shape {frames.shape}: expected uint8 (frames, height, width, 3)"
        )
    scale = scale or scale_of(places)
    times, *across = (
        _interpolation(*axis) for axis in zip(frames.shape[:3], _centres(places, centres), strict=True)
    )
    shares = places.astype(np.float64) * places.size
    drawn = np.empty_like(frames)
    for frame, time, out in zip(frames, times, drawn, strict=True):
        weights = across[0] @ np.tensordot(time, shares, axes=1) @ across[1].T
        out[:] = blended(frame @ LUMA, weights / scale)
    return drawn


def scale_of(places: NDArray[np.floating]) -> float:
    """Weight that is drawn the strongest, in multiples of the uniform weight."""
    return max(LEAST_SCALE, float(places.max()) * places.size)


def blended(grey: NDArray[np.float32], values: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Colour grey values (...) by values from 0 to 1, the more opaque the larger they are."""
    values = np.clip(values, 0, 1)
    shades = scale_colours()[np.round(values * 255).astype(np.intp)]
    opacity = (OPACITY * values)[..., None]
    drawn: NDArray[np.uint8] = np.round((1 - opacity) * grey[..., None] + opacity * shades).astype(np.uint8)
    return drawn


@cache
def scale_colours() -> NDArray[np.float64]:
    """Colours (256, 3) of the scale, in 0..255."""
    from matplotlib import colormaps

    colours: NDArray[np.float64] = 255 * colormaps[COLOURS](np.arange(256))[:, :3]
    return colours


def _centres(places: NDArray[np.floating], centres: Centres | None) -> Centres:
    """Centres of the places along each axis."""
    if places.ndim != 3:
        raise InputError(f"a map is of shape {places.shape}: expected (time, height, width)")
    if centres is None:
        return [(np.arange(count) + 0.5) / count for count in places.shape]
    if tuple(map(len, centres)) != places.shape:
        given = tuple(map(len, centres))
        raise InputError(f"{given} centres of a map of {places.shape} places: expected as many of each axis")
    return centres


def _interpolation(count: int, centres: Floats) -> Floats:
    """Matrix (count, places): part of each place in each of so many equal parts of an axis."""
    middles = (np.arange(count) + 0.5) / count
    unit = np.eye(len(centres))
    return np.stack([np.interp(middles, centres, place) for place in unit], axis=1)
