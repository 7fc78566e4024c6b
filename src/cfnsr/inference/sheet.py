"""One answer explained on one page: video, audio, and the effect of each modality."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cfnsr.inference.palette import FAINT, INK, style
from cfnsr.media.decode import spread

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import SubFigure

    from cfnsr.inference.explain import Block, Explanation

Floats = NDArray[np.float64]

NO_PROOF = "Weights inside the model; not proof of cause."
CROPS = 6  # a row
ROWS = 8  # features with the largest weights
LONGEST_NAME = 64  # letters
WIDTH = 9.6  # inches
DPI = 110
COLOURS = "viridis"  # the larger the weight the lighter; distinct for the colour-blind
OPACITY = 0.75  # of the colour at the largest weight; where there is none the picture shows
LEAST_SCALE = 2.0  # times the uniform weight, at the end of the scale: a uniform map is to look uniform
LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # of RGB (ITU-R BT.601)
# After Okabe & Ito (2008), distinct for the colour-blind; the emotions' own colours stand for emotions.
BLUE, ORANGE, GREEN = "#0072b2", "#d98200", "#009e73"
CALLED = {"video": "face", "audio": "sound"}
WITHOUT = {"video": ORANGE, "audio": GREEN}
STYLE: dict[Any, Any] = {
    "axes.edgecolor": "#999999",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.5,
    "xtick.major.size": 0,
}

# What moves in a face (Ekman, Friesen & Hager 2002, Facial Action Coding System).
MOVEMENTS = {
    1: "inner brow raiser", 2: "outer brow raiser", 4: "brow lowerer",
    5: "upper lid raiser", 6: "cheek raiser", 7: "lid tightener",
    9: "nose wrinkler", 10: "upper lip raiser", 12: "lip corner puller",
    14: "dimpler", 15: "lip corner depressor", 17: "chin raiser",
    20: "lip stretcher", 23: "lip tightener", 25: "lips part",
    26: "jaw drop", 28: "lip suck", 45: "blink",
}  # fmt: skip


def sheet(
    explanation: Explanation,
    *,
    frames: NDArray[np.uint8] | None = None,
    times: NDArray[np.floating] | None = None,
    sound: NDArray[Any] | None = None,
    span: tuple[float, float] | None = None,
    name: str = "",
) -> bytes:
    """Draw the parts that an explanation has on one page, as a PNG.

    Args:
        frames: (T, H, W, 3) uint8, the face's crops, as `prepare_clip` makes them.
        times: (T,) seconds of them in the file.
        sound: waveform (N,) or its features (F, S), such as MFCCs.
        span: seconds in the file where that sound begins and ends.
    """
    from matplotlib.figure import Figure

    block = explanation.blocks[0] if explanation.blocks else None
    parts: list[tuple[float, Callable[[SubFigure], None]]] = []  # inches of its height, and who draws it
    if explanation.features and block is not None:
        parts.append((2.75, lambda part: _draw_features(part, explanation, block)))
    elif frames is not None:
        parts.append((2.5, lambda part: _draw_faces(part, explanation, block, frames, times)))
    if sound is not None or block is not None:
        parts.append((2.5, lambda part: _draw_sound(part, explanation, block, sound, span)))
    if explanation.contributions:
        parts.append((1.75, lambda part: _draw_contributions(part, explanation)))
    parts.append((0.75 + 0.3 * len(explanation.emotions), lambda part: _draw_answer(part, explanation)))
    heights = [height for height, _ in parts]
    shown = name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "…"
    answer = f"{explanation.emotion}, probability {explanation.probabilities.max():.2f}"
    buffer = io.BytesIO()
    with style(STYLE):
        # A figure of its own: no pyplot, so no window system and no state between sheets.
        figure = Figure(figsize=(WIDTH, 0.4 + sum(heights)), dpi=DPI, layout="constrained")
        title = f"{shown}: {answer}" if name else answer
        figure.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold")
        rows = figure.subfigures(len(parts), 1, height_ratios=heights, squeeze=False)[:, 0]
        for row, (_, draw) in zip(rows, parts, strict=True):
            draw(row)
        figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def label(feature: str) -> str:
    """Name an OpenFace column in words.

    >>> label("AU12_r"), label("AU28_c"), label("pose_Rx")
    ('AU12 lip corner puller, strength', 'AU28 lip suck, presence', 'pose_Rx')
    """
    number, _, kind = feature.removeprefix("AU").partition("_")
    if not feature.startswith("AU") or kind not in ("r", "c"):
        return feature
    return f"AU{number} {MOVEMENTS[int(number)]}, {'strength' if kind == 'r' else 'presence'}"


def _head(part: SubFigure, title: str, note: str = "") -> None:
    """Write a title and beneath it a note."""
    lines = [title, *textwrap.wrap(note, 128)]
    part.suptitle("\n".join(lines), x=0.01, ha="left", fontsize=9, linespacing=1.3)


def _draw_faces(
    part: SubFigure,
    explanation: Explanation,
    block: Block | None,
    frames: NDArray[np.uint8],
    times: NDArray[np.floating] | None,
) -> None:
    chosen = spread(len(frames), CROPS)
    row = part.subplots(1, len(chosen), squeeze=False)[0]
    if block is None:
        _head(part, "Video", "It has no cross-modal block, so there is no map to show.")
    else:
        frames = heatmap(frames, block.places, block.centres)
        _head_map(part, explanation, block)
        _draw_scale(part, list(row), scale_of(block.places), over_pictures=True)
    for axis, place in zip(row, chosen, strict=True):
        axis.imshow(frames[place])
        axis.set_axis_off()
        at = f"{100 * (place + 0.5) / len(frames):.0f} %" if times is None else f"{times[place]:.2f} s"
        axis.set_title(at, fontsize=8)


def _draw_features(part: SubFigure, explanation: Explanation, block: Block) -> None:
    shares = block.places[..., 0].T * block.places.size  # (features, T)
    order = np.argsort(-shares.mean(axis=1), kind="stable")[:ROWS]
    _head_map(part, explanation, block)
    axis: Axes = part.subplots()
    names = [label(explanation.features[place]) for place in order]
    if shares.shape[1] == 1:
        axis.barh(names, shares[order, 0], color=BLUE, height=0.6)
        axis.bar_label(axis.containers[0], fmt="%.2f", padding=3)  # type: ignore[arg-type]
        axis.axvline(1, color=INK, linewidth=0.8, linestyle="--")
        axis.set_xlabel("weight, in multiples of the uniform weight")
        axis.margins(x=0.08)
    else:
        scale = scale_of(block.places)
        extent = (0, 100, len(order) - 0.5, -0.5)
        axis.imshow(shares[order], COLOURS, aspect="auto", vmin=0, vmax=scale, extent=extent)
        axis.set_yticks(range(len(order)), names)
        axis.set_xlabel("time, % of the window")
        _draw_scale(part, [axis], scale, over_pictures=False)
    axis.set_ylim(len(order) - 0.5, -0.5)


def _draw_scale(part: SubFigure, axes: list[Axes], scale: float, *, over_pictures: bool) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import ListedColormap, Normalize

    steps = np.linspace(0, 1, 256)
    colours = blended(np.full(256, 128, np.float32), steps) if over_pictures else scale_colours()
    shown = ScalarMappable(Normalize(0, scale), ListedColormap(colours / 255))
    bar = part.colorbar(shown, ax=axes, fraction=0.03, pad=0.01)
    bar.set_label("times the uniform weight", fontsize=8)
    bar.outline.set_visible(False)


def _head_map(part: SubFigure, explanation: Explanation, block: Block) -> None:
    """Write title and note of the picture over the video map."""
    rows = "features of the face" if explanation.features else "places of the video"
    if block.over_video:
        title = f"Attention of the cross-modal block: its softmax map over the {rows}"
        _head(part, title, NO_PROOF + _moved(explanation, block))
    else:
        title = f"Token weights of the cross-modal block's self-attention over {rows} (rollout)"
        _head(part, title, NO_PROOF)


def _moved(explanation: Explanation, block: Block) -> str:
    change = _signed(-block.moved, 3)
    text = f" With uniform weights the log-probability of {explanation.emotion} would change by {change}"
    return f"{text}." if block.effective else f"{text}: this map had no effect on the answer."


def _draw_sound(
    part: SubFigure,
    explanation: Explanation,
    block: Block | None,
    sound: NDArray[Any] | None,
    span: tuple[float, float] | None,
) -> None:
    start, end = span or (0.0, 100.0)
    if block is None:
        _head(part, "Audio", "It has no cross-modal block, so no steps were chosen.")
    elif block.over_video:
        title = "Token weights of the cross-modal block's self-attention over the audio steps (rollout)"
        _head(part, title, f"The vector of these steps weights the video. {NO_PROOF}")
    else:
        title = "Attention of the cross-modal block over the audio: its softmax over the steps"
        _head(part, title, NO_PROOF + _moved(explanation, block))
    rows = (sound is not None) + (block is not None)
    axes = part.subplots(rows, 1, sharex=True, squeeze=False)[:, 0]
    if sound is not None:
        _draw_signal(axes[0], sound, start, end)
    if block is not None:
        edges = np.linspace(start, end, len(block.steps) + 1)
        shares = block.steps * block.steps.size
        axes[-1].bar(edges[:-1], shares, np.diff(edges) * 0.92, align="edge", color=BLUE)
        axes[-1].axhline(1, color=INK, linewidth=0.8, linestyle="--")
        axes[-1].set(ylim=(0, max(LEAST_SCALE, 1.05 * shares.max())), ylabel="times the\nuniform weight")
    axes[-1].tick_params(axis="x", pad=7)  # the first time is not to touch the lowest weight
    axes[-1].set(xlim=(start, end), xlabel="time in the file, s" if span else "time, % of the sound")


def _draw_signal(axis: Axes, sound: NDArray[Any], start: float, end: float) -> None:
    if sound.ndim == 2:
        values = sound.astype(np.float64)
        deviation = values.std(axis=1, keepdims=True)
        values = (values - values.mean(axis=1, keepdims=True)) / np.where(deviation > 0, deviation, 1)
        extent = (start, end, -0.5, len(values) - 0.5)
        axis.imshow(values, "cividis", aspect="auto", origin="lower", extent=extent, vmin=-2.5, vmax=2.5)
        axis.set(yticks=[], ylabel="features of\nthe sound")
        return
    columns = np.array_split(sound.astype(np.float64), min(len(sound), 800))  # as many as pixels, about
    low, high = np.array([(column.min(), column.max()) for column in columns]).T
    loudest = max(abs(low).max(), abs(high).max()) or 1.0
    moments = start + (np.arange(len(columns)) + 0.5) / len(columns) * (end - start)
    axis.fill_between(moments, low / loudest, high / loudest, color="#777777", linewidth=0.3)
    axis.set(ylim=(-1.05, 1.05), yticks=[], ylabel="sound")


def _draw_contributions(part: SubFigure, explanation: Explanation) -> None:
    title = f"What each modality adds to the answer {explanation.emotion}: with both, less without it"
    met = "" if explanation.tolerant else " The model was not trained to do without one."
    _head(part, title, f"What both say alike counts for neither.{met}")
    axis: Axes = part.subplots()
    rows = np.arange(len(explanation.contributions))
    changes = np.array([each.log_change for each in explanation.contributions])
    axis.barh(rows, changes, color=[WITHOUT[each.modality] for each in explanation.contributions], height=0.6)
    axis.axvline(0, color=INK, linewidth=0.8)
    reach = max(0.5, 1.1 * abs(changes).max())
    axis.set_xlim(min(-0.25 * reach, 1.1 * changes.min()), reach)
    names = [f"{CALLED[each.modality]}\n(else {each.instead})" for each in explanation.contributions]
    axis.set_yticks(rows, names)
    axis.set_ylim(len(rows) - 0.5, -0.5)
    axis.set_xlabel("change of the log-probability, nats")
    place = explanation.emotions.index(explanation.emotion)
    figures = [
        f"{_signed(each.log_change, 2)} nats\nprobability {each.probabilities[place]:.2f} without, "
        f"{explanation.probabilities[place]:.2f} with"
        for each in explanation.contributions
    ]
    right = axis.secondary_yaxis("right")
    right.set_yticks(rows, figures)
    right.spines["right"].set_visible(False)


def _signed(value: float, digits: int) -> str:
    """Format with a sign, zero without.

    >>> _signed(0.126, 2), _signed(-0.001, 2)
    ('+0.13', '0.00')
    """
    rounded = round(value, digits)
    return f"{rounded:+.{digits}f}" if rounded else f"{0:.{digits}f}"


def _draw_answer(part: SubFigure, explanation: Explanation) -> None:
    lacking = ", and what it would be without one modality" if explanation.contributions else ""
    _head(part, f"The answer{lacking}")
    series = [("the answer", explanation.probabilities, BLUE)]
    for each in explanation.contributions:
        series.append((f"without the {CALLED[each.modality]}", each.probabilities, WITHOUT[each.modality]))
    axis: Axes = part.subplots()
    rows = np.arange(len(explanation.emotions))
    height = 0.8 / len(series)
    for place, (title, probabilities, colour) in enumerate(series):
        at = rows + (place - (len(series) - 1) / 2) * height
        axis.barh(at, probabilities, 0.9 * height, color=colour, label=title)
    axis.set_yticks(rows, explanation.emotions)
    axis.set(xlim=(0, 1), ylim=(len(rows) - 0.5, -0.5), xlabel="probability")
    axis.grid(visible=True, axis="x")
    if len(series) > 1:
        part.legend(loc="outside right upper", frameon=False)


def heatmap(
    frames: NDArray[np.uint8], places: NDArray[np.floating], centres: Sequence[Floats] | None = None
) -> NDArray[np.uint8]:
    """Draw a map (T', H', W') over frames (T, H, W, 3): the larger the weight, the lighter and stronger.

    The pictures are drawn in grey, so that a colour is always a weight. The weights `places` sum to 1; see
    `Block.centres`, which are in the middle of equal parts if not given.
    """
    scale = scale_of(places)
    drawn = zip(frames, upsampled(places, frames.shape[:3], centres), strict=True)
    return np.stack([blended(frame @ LUMA, weights / scale) for frame, weights in drawn])


def upsampled(
    places: NDArray[np.floating], shape: Sequence[int], centres: Sequence[Floats] | None = None
) -> Iterator[Floats]:
    """Interpolate a map (T', H', W') at every pixel of frames (T, H, W), linearly along each axis.

    Beyond the outermost centres their weight goes on. Weights are in multiples of the uniform one.

    >>> list(upsampled(np.array([[[0.25, 0.75]]]), (1, 1, 4)))
    [array([[0.5 , 0.75, 1.25, 1.5 ]])]
    """

    def middles(count: int) -> Floats:
        return (np.arange(count) + 0.5) / count

    def interpolation(count: int, centres: Floats) -> Floats:
        """Matrix (count, places): part of each place in each of so many equal parts of an axis."""
        return np.stack([np.interp(middles(count), centres, place) for place in np.eye(len(centres))], axis=1)

    centres = centres or [middles(count) for count in places.shape]
    times, rows, columns = (interpolation(*axis) for axis in zip(shape, centres, strict=True))
    shares = places.astype(np.float64) * places.size
    for time in times:
        yield rows @ np.tensordot(time, shares, axes=1) @ columns.T


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
def scale_colours() -> Floats:
    """Colours (256, 3) of the scale, in 0..255."""
    from matplotlib import colormaps

    colours: Floats = 255 * colormaps[COLOURS](np.arange(256))[:, :3]
    return colours
