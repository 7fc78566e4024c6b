"""The report's plots, as SVG that takes its colours from the page around it.

Inline SVG stays sharp at any width, needs no second copy for dark mode and keeps its text as text.
Matplotlib knows no CSS variables, so it draws with one stand-in colour per variable, replaced afterwards.
"""

import io
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from html import escape
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup

from cfnsr.data.conditions import label
from cfnsr.evaluation import calibration
from cfnsr.evaluation.calibration import Answered
from cfnsr.evaluation.estimates import Estimate, Interval
from cfnsr.evaluation.metrics import Floats, interval, recalls
from cfnsr.evaluation.render import percent
from cfnsr.evaluation.rows import Row

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK, FAINT, OURS, OTHER = "#010203", "#020304", "#030405", "#040506"
VARIABLES = {INK: "var(--ink)", FAINT: "var(--line)", OURS: "var(--ours)", OTHER: "var(--other)"}
WIDTH = 4.8  # inches of 72 points: about a phone's width, two beside each other on a desk
SPACING = 6  # per cent of the axis between the names of two points
FEWEST_ANSWERED = 0.01  # of the clips: the accuracy of fewer is no point of a curve
LABELLED = 30  # actors whose names fit under the axis

ABOVE = {"frameon": False, "ncols": 3, "loc": "lower left", "bbox_to_anchor": (0, 1), "borderaxespad": 0.2}
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "cfnsr",
    "font.size": 9,
    "text.parse_math": False,  # an actor may be called $1
    **dict.fromkeys(("text.color", "axes.labelcolor", "xtick.color", "ytick.color"), INK),
    "axes.edgecolor": FAINT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.5,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
}


def learning_curves(row: Row) -> Markup:
    """Plot loss and accuracy by epoch: each run faint, their mean strong, the chosen epochs marked."""
    histories, chosen = [run.history for run in row.runs], [run.epoch for run in row.runs]
    split = "validation" if "validation_accuracy" in histories[0][-1] else "test"
    mark = "last epoch" if row.runs[0].keeps_last else "chosen epoch"
    alt = f"Learning curves of {row.name}; {split} (dashed: train); {row.epoch_label}"
    with _figure(3.9) as figure:
        loss, accuracy = figure.subplots(2, 1, sharex=True)
        for part, style, colour in (("train", "--", OTHER), (split, "-", OURS)):
            for axis, what, scale in ((loss, "loss", 1), (accuracy, "accuracy", 100)):
                values = ([epoch.get(f"{part}_{what}") for epoch in history] for history in histories)
                curves = scale * np.array(list(zip_longest(*values)), dtype=float)  # (epochs, runs)
                if np.isnan(curves).all():
                    continue
                epochs = np.arange(1, len(curves) + 1)
                axis.plot(epochs, curves, style, color=colour, linewidth=0.6, alpha=0.4)
                mean = np.ma.masked_invalid(curves).mean(axis=1)
                axis.plot(epochs, mean, style, color=colour, linewidth=1.8, label=part)
                runs = [run for run, epoch in enumerate(chosen) if part == split and epoch <= len(epochs)]
                if runs:
                    at = np.array([chosen[run] for run in runs], dtype=int)
                    marks = {"color": colour, "markersize": 4, "label": mark, "clip_on": False}
                    axis.plot(at, curves[at - 1, runs], "o", **marks)
        loss.set(ylabel="loss", ylim=(0, None))
        if loss.lines:  # of a model that was only tested there are none
            loss.legend(**ABOVE)
        accuracy.set(ylabel="accuracy %", ylim=(0, 100), xlabel="epoch")
        accuracy.xaxis.get_major_locator().set_params(integer=True)
        return _svg(figure, alt)


def actor_bars(row: Row) -> Markup:
    """Plot accuracy of each actor as bars, with a line at the mean."""
    names, accuracies = list(map(str, row.accuracy_of)), np.array([*row.accuracy_of.values()])
    low, high = int(accuracies.argmin()), int(accuracies.argmax())
    alt = (
        f"Accuracy of each test actor of {row.name}: from {percent(accuracies[low])} % "
        f"(actor {names[low]}) to {percent(accuracies[high])} % (actor {names[high]})"
    )
    with _figure(2.6) as figure:
        axis = figure.subplots()
        places = np.arange(len(names))
        axis.bar(places, accuracies * 100, width=0.7, color=OURS, alpha=0.75)
        axis.axhline(row.estimates["accuracy"].mean * 100, color=INK, linewidth=1, linestyle="--")
        axis.set(ylim=(0, 100), xlim=(-0.6, len(names) - 0.4), ylabel="accuracy %", xlabel="actor")
        axis.grid(visible=False, axis="x")
        shown = places[:: -(-len(names) // LABELLED)]
        upright = max(map(len, names)) * len(shown) > 60
        axis.set_xticks(shown, [names[at] for at in shown], rotation=90 if upright else 0, fontsize=8)
        return _svg(figure, alt)


def emotion_bars(row: Row) -> Markup:
    """Plot accuracy of each emotion as bars with 95 % intervals by actor, and a line at the mean accuracy."""
    names, counts = row.emotions, row.tally.actors
    accuracies, limits = recalls(counts.pooled()), interval(recalls, counts)
    shares = ", ".join(f"{name} {percent(value)} %" for name, value in zip(names, accuracies, strict=True))
    alt = f"Accuracy of each emotion of {row.name}: {shares}"
    with _figure(0.8 + 0.27 * len(names)) as figure:
        axis = figure.subplots()
        places = np.arange(len(names))
        axis.barh(places, accuracies * 100, height=0.65, color=OURS, alpha=0.75)
        axis.hlines(places, limits[0] * 100, limits[1] * 100, color=INK, linewidth=1.2)
        axis.axvline(row.estimates["accuracy"].mean * 100, color=INK, linewidth=1, linestyle="--")
        axis.set_yticks(places, names)
        axis.invert_yaxis()
        axis.set(xlim=(0, 100), xlabel="accuracy %")
        axis.grid(visible=False, axis="y")
        figures = axis.secondary_yaxis("right")
        figures.set_yticks(places, ["–" if np.isnan(value) else f"{100 * value:.0f}" for value in accuracies])
        figures.spines["right"].set_visible(False)
        return _svg(figure, alt)


def reliability(row: Row) -> Markup:
    """Plot accuracy of the clips of like confidence, and below how many clips there are; raw and tempered."""
    found = row.calibration
    errors = ", ".join(f"{percent(estimate.mean)} % {kind}" for kind, estimate in found.ece.items())
    alt = f"Reliability diagram of {row.name}; expected calibration error {errors}"
    styles = {"raw": (OTHER, "--", -0.8), "tempered": (OURS, "-", 0.8)}
    with _figure(4.0) as figure:
        axis, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        axis.plot([0, 100], [0, 100], color=INK, linewidth=0.8, linestyle=":", label="as it should be")
        for kind, tally in found.tallies.items():
            confidence, right, clips = calibration.reliability(tally.actors.pooled().bins)
            colour, style, side = styles[kind]
            line = {"color": colour, "linewidth": 1.5, "markersize": 4, "label": kind}
            axis.plot(confidence * 100, right * 100, style, marker="o", **line)
            beside = side if len(found.tallies) > 1 else 0.0
            below.bar(confidence * 100 + beside, clips, width=1.6, color=colour)
        axis.set(ylim=(0, 100), ylabel="accuracy %")
        axis.legend(**ABOVE)
        below.set(xlim=(0, 100), xlabel="confidence %", ylabel="clips")
        return _svg(figure, alt)


def abstention(row: Row) -> Markup:
    """Plot accuracy of the answered clips against their share, at fixed thresholds and at chosen ones."""
    curve, chosen = row.calibration.curve, row.calibration.abstention
    points = [f"{percent(each.accuracy)} % of {percent(each.coverage)} %" for each in chosen or curve]
    alt = f"Accuracy of the answered clips of {row.name} against their share: {', '.join(points)}"
    coverage, accuracy = _answered(curve)
    accuracy = np.where(coverage < 100 * FEWEST_ANSWERED, np.nan, accuracy)
    limits = _limits(each.accuracy_ci95 for each in curve)
    with _figure(3.0) as figure:
        axis = figure.subplots()
        axis.fill_between(coverage, *limits, color=OURS, alpha=0.15, linewidth=0)
        axis.plot(coverage, accuracy, "-o", color=OURS, linewidth=1.5, markersize=3)
        free = np.inf  # coverage falls as the threshold rises: names must not stand upon each other
        for threshold, x, y in zip(calibration.THRESHOLDS, coverage, accuracy, strict=True):
            if not np.isnan(y) and x <= free:
                axis.annotate(f"{threshold:g}", (x, y), (0, -11), textcoords="offset points", ha="center")
                free = x - SPACING
        if chosen:
            marks: dict[str, Any] = {"color": OTHER, "markersize": 7, "markerfacecolor": "none"}
            axis.plot(*_answered(chosen), "o", label="threshold chosen on validation", **marks)
            axis.legend(**ABOVE)
        axis.set(xlim=(0, 102), ylim=(0, 102), xlabel="clips answered %", ylabel="accuracy of these %")
        return _svg(figure, alt)


def condition_dots(condition: str, rows: Sequence[Row]) -> Markup:
    """Plot accuracy of several rows of a protocol under one condition, with 95 % intervals by actor.

    The hollow dot is the row's accuracy on clean clips, the line from it what the condition costs. A row
    without the condition keeps its line, so that the panels can be read across.
    """
    names = [row.model for row in rows]
    under = [row.conditions.get(condition, Estimate(np.nan)) for row in rows]
    accuracies = 100 * np.array([each.mean for each in under])
    clean = 100 * np.array([row.estimates["accuracy"].mean for row in rows])
    low, high = _limits(each.ci95 for each in under)
    means = ", ".join(f"{name} {percent(each.mean)}" for name, each in zip(names, under, strict=True))
    alt = f"Accuracy in per cent, {label(condition)}, {rows[0].protocol_label}: {means}"
    with _figure(0.75 + 0.23 * len(names)) as figure:
        axis = figure.subplots()
        places = np.arange(len(names))
        axis.hlines(places, accuracies, clean, color=OTHER, linewidth=1, linestyle=":")
        axis.plot(clean, places, "o", color=OTHER, markersize=5, markerfacecolor="none")
        axis.hlines(places, low, high, color=OURS, linewidth=1.6)
        axis.plot(accuracies, places, "o", color=OURS, markersize=5)
        axis.axvline(100 / len(rows[0].emotions), color=INK, linewidth=0.8, linestyle="--")
        axis.set_yticks(places, names)
        axis.set(ylim=(len(names) - 0.4, -0.6), xlim=(0, 100), xlabel="accuracy %")
        return _svg(figure, alt)


def picture(row: Row) -> Markup:
    """Draw accuracy, its interval, chance and the paper's figure on a line from 0 to 100 %."""
    accuracy, chance = row.estimates["accuracy"], 100 / len(row.emotions)
    inside = '<line class="axis" x1="0" x2="100" y1="5" y2="5"/>'
    inside += f'<line class="chance" x1="{chance}" x2="{chance}" y1="0" y2="10"/>'
    if accuracy.ci95:
        low, high = accuracy.ci95
        inside += f'<line class="bar" x1="{100 * low:.2f}" x2="{100 * high:.2f}" y1="5" y2="5"/>'
    if row.paper and not row.incomparable:
        left = 100 * row.paper.accuracy - 2
        inside += f'<rect class="paper" x="{left:.2f}" y="3" width="4" height="4"/>'
    inside += f'<circle class="dot" cx="{100 * accuracy.mean:.2f}" cy="5" r="3"/>'
    return Markup(f'<svg class="line" viewBox="0 0 100 10" aria-hidden="true">{inside}</svg>')  # noqa: S704 - numbers


@contextmanager
def _figure(height: float) -> Iterator["Figure"]:
    """Make a figure of its own: no pyplot, so no window system and no state between plots."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(STYLE):
        yield Figure(figsize=(WIDTH, height), layout="constrained")


def _svg(figure: "Figure", alt: str) -> Markup:
    """Write the figure as an `<svg>` element, without anything that names an outside resource."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True)
    text = buffer.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text[text.index("<svg") :], flags=re.DOTALL)
    # Groups are numbered anew in every plot, so their ids would stand in the page more than once.
    text = re.sub(r' id="[A-Za-z.0-9]+_\d+"', "", text)
    text = re.sub(r' xmlns(:xlink)?="[^"]*"| version="1.1"', "", text)
    # A hundredth of a point is less than a pixel: further digits only make the page long.
    text = re.sub(r' d="[^"]*"', lambda path: re.sub(r"(\.\d\d)\d+", r"\1", path.group()), text)
    size = re.sub(r' width="([\d.]+)pt" height="[\d.]+pt"', "", text.split(">", 1)[0])
    for colour, variable in VARIABLES.items():
        text = text.replace(colour, variable)
    tag = f'{size} class="plot" role="img" aria-label="{escape(alt)}">'
    return Markup(tag + text.split(">", 1)[1])  # noqa: S704 - matplotlib escapes what it writes


def _answered(answered: Sequence[Answered]) -> tuple[Floats, Floats]:
    """Coverage and accuracy in per cent."""
    coverage, accuracy = 100 * np.array([(each.coverage, each.accuracy) for each in answered], dtype=float).T
    return coverage, accuracy


def _limits(intervals: Iterable[Interval | None]) -> Floats:
    """(2, N) lower and upper limits in per cent; NaN where there are none."""
    return 100 * np.array([each or (np.nan, np.nan) for each in intervals]).T
