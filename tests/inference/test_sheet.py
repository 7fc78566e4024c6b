"""Sheets that explain an answer: what is there is drawn, and nothing overlaps."""

from functools import cache
from itertools import combinations
from typing import Any
from unittest import mock

import cv2
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from cfnsr.emotions import RAVDESS
from cfnsr.inference import sheet as drawing
from cfnsr.inference.drawing import style
from cfnsr.inference.explain import Block, Contribution, Explanation
from cfnsr.inference.sheet import sheet
from cfnsr.media.openface import ACTION_UNITS


def weights(*shape: int, seed: int = 0) -> np.ndarray:
    drawn = np.random.default_rng(seed).random(shape) ** 4
    shares: np.ndarray = drawn / drawn.sum()
    return shares


def explanation(kind: str) -> Explanation:
    """Made-up ones of every kind of model, in the emotions whose names are the longest."""
    probabilities = weights(8, seed=1)
    emotion = RAVDESS.emotions[int(probabilities.argmax())]
    if kind == "one modality":
        return Explanation(emotion, RAVDESS.emotions, probabilities)
    contributions = tuple(
        Contribution(modality, instead, weights(8, seed=seed), change, change)
        for modality, instead, seed, change in (
            ("video", "pictures of one plain colour", 2, -1.234),
            ("audio", "average speech", 3, 12.3),
        )
    )
    if kind == "no block":
        return Explanation(emotion, RAVDESS.emotions, probabilities, (), contributions)
    track = kind.startswith("track")
    shape = (int(kind.split()[1]), 35, 1) if track else (2, 7, 7)
    centres = [(np.arange(count) + 0.5) / count for count in shape]
    block = Block(
        3,
        "audio" if kind == "video to audio" else "video",
        weights(*shape, seed=4),
        weights(26, seed=5),
        (centres[0], centres[1], centres[2]),
        -0.0123,
    )
    features = ACTION_UNITS if track else ()
    return Explanation(emotion, RAVDESS.emotions, probabilities, (block,), contributions, features)


KINDS = ["audio to video", "video to audio", "track 1", "track 16", "no block", "one modality"]
FRAMES = np.random.default_rng(0).integers(0, 255, (30, 48, 48, 3), dtype=np.uint8)
WAVEFORM = (9000 * np.sin(np.arange(44_100) / 20)).astype(np.int16)
GIVEN: list[dict[str, Any]] = [
    {},
    {"frames": FRAMES, "sound": WAVEFORM, "name": "a file $1_$2 of a name that is much too long" * 3},
    {
        "frames": FRAMES,
        "times": np.arange(30) / 10 + 3599,
        "sound": np.eye(13, 212),
        "span": (3599.0, 3602.0),
    },
]


@cache
def drawn(kind: str, given: int) -> tuple[Figure, list[tuple[str, Bbox]]]:
    """The figure behind a sheet, and its texts with their places in pixels."""
    whole = {"frames": None, "times": None, "sound": None, "span": None, "name": "", **GIVEN[given]}
    with style(drawing.STYLE):
        figure = drawing._figure(explanation(kind), **whole)
        # A figure holds many more texts than it draws, such as ticks beyond its limits.
        with mock.patch.object(Text, "draw", autospec=True) as draw:
            FigureCanvasAgg(figure).draw()
        texts = {id(call.args[0]): call.args[0] for call in draw.call_args_list}.values()
        shown = [text for text in texts if text.get_visible() and text.get_text().strip()]
        return figure, [(text.get_text(), text.get_window_extent()) for text in shown]


@pytest.mark.parametrize(
    ("kind", "given"),
    [*((kind, 1) for kind in KINDS), ("audio to video", 0), ("audio to video", 2), ("track 16", 2)],
)
def test_nothing_on_a_sheet_overlaps_or_is_cut_off(kind: str, given: int) -> None:
    figure, texts = drawn(kind, given)
    assert len(texts) > 8
    for text, box in texts:
        assert box.x0 >= 0 and box.y0 >= 0, text
        assert box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1, text
    for (one, first), (other, second) in combinations(texts, 2):
        across = min(first.x1, second.x1) - max(first.x0, second.x0)
        down = min(first.y1, second.y1) - max(first.y0, second.y0)
        assert across <= 1 or down <= 1, f"{one!r} and {other!r} overlap"


@pytest.mark.parametrize("kind", KINDS)
def test_a_sheet_says_what_is_there_and_no_more(kind: str) -> None:
    said = " ".join(text for text, _ in drawn(kind, 1)[1])
    assert ("not proof of cause" in said) == (kind not in ("no block", "one modality"))
    assert ("softmax map over the places" in said) == (kind == "audio to video")
    assert ("its softmax over the steps" in said) == (kind == "video to audio")
    assert ("What each modality adds" in said) == (kind != "one modality")
    assert ("not trained to do without" in said) == (kind != "one modality")
    assert ("AU" in said) == kind.startswith("track")
    if kind not in ("no block", "one modality"):
        assert "would change by +0.012" in said, "with uniform weights the answer was the larger"
    if kind != "one modality":
        assert "-1.23 nats" in said and "+12.30 nats" in said


def test_a_sheet_is_a_picture() -> None:
    png = sheet(explanation("audio to video"), **GIVEN[1])
    picture = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None
    height, width, _ = picture.shape
    assert (width, height > 800) == (round(drawing.WIDTH * drawing.DPI), True)
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 1000, "the faces are in it"
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
