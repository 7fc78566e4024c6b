"""Sheets that explain an answer: what is there is drawn, nothing overlaps, a map lies at its weights."""

from functools import cache
from itertools import combinations
from typing import Any
from unittest import mock

import cv2
import numpy as np
import pytest
import torch
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox
from torch.nn import functional

from cfnsr.emotions import RAVDESS
from cfnsr.inference import sheet as drawing
from cfnsr.inference.explain import Block, Contribution, Explanation
from cfnsr.inference.palette import style
from cfnsr.inference.sheet import heatmap, scale_of, sheet, upsampled
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
        with mock.patch.object(Figure, "savefig", autospec=True) as saved:
            sheet(explanation(kind), **whole)
        figure: Figure = saved.call_args.args[0]
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
    assert len(np.unique(picture.astype(int) @ [1, 256, 65_536])) > 1000, "the faces are in it"
    assert png.startswith(b"\x89PNG\r\n\x1a\n")


def fine(places: np.ndarray, shape: tuple[int, int, int], centres: Any = None) -> np.ndarray:
    """Shares of every pixel, which sum to 1."""
    values = np.stack(list(upsampled(places, shape, centres)))
    shares: np.ndarray = values / values.sum()
    return shares


@pytest.mark.parametrize("shape", [(30, 28, 28), (7, 20, 33), (2, 3, 4), (1, 1, 1)])
def test_upsampling_is_trilinear(shape: tuple[int, int, int]) -> None:
    places = weights(2, 3, 4)
    between = functional.interpolate(
        torch.from_numpy(places)[None, None], shape, mode="trilinear", align_corners=False
    )[0, 0].numpy()
    values = np.stack(list(upsampled(places, shape)))
    np.testing.assert_allclose(values, 24 * between, atol=1e-12)


def test_weights_lie_at_their_centres() -> None:
    """Of a place that sees the middle of the 17th of 30 frames, that frame is drawn the strongest."""
    places = np.zeros((2, 7, 7))
    places[1, 3, 6] = 1
    centres = [
        (np.arange(count) * stride + 0.5) / size
        for count, stride, size in ((2, 16, 30), (7, 32, 224), (7, 32, 224))
    ]
    drawn = fine(places, (30, 224, 224), centres)
    assert drawn[16:, 96, 192].min() == drawn.max() > drawn[15, 96, 192]
    assert drawn[16, 95, 192] < drawn.max() > drawn[16, 97, 192]
    assert drawn[20, 96, 191] < drawn.max() == drawn[20, 96, 223], "beyond the last centre its weight holds"
    uniform = fine(np.full((2, 7, 7), 1 / 98), (8, 9, 10), centres)
    np.testing.assert_allclose(uniform, 1 / uniform.size)


def test_heatmap_draws_in_grey_where_there_is_no_weight_and_in_the_scale_where_all_is() -> None:
    frames = np.random.default_rng(0).integers(0, 255, (2, 8, 8, 3), dtype=np.uint8)
    places = np.zeros((2, 4, 4))
    places[0, 0, 3] = 1
    drawn = heatmap(frames, places)
    assert drawn.shape == frames.shape and drawn.dtype == np.uint8
    grey = cv2.cvtColor(frames[1], cv2.COLOR_RGB2GRAY).astype(int)
    assert abs(drawn[1] - grey[..., None]).max() <= 1, "the second frame has no weight"
    top = 255 * np.array(colormaps["viridis"](255)[:3])
    grey = cv2.cvtColor(frames[0], cv2.COLOR_RGB2GRAY)
    expected = (1 - drawing.OPACITY) * grey[0, 7] + drawing.OPACITY * top
    assert abs(drawn[0, 0, 7] - expected).max() <= 1, "all the weight"
    assert abs(drawn[0, 7, 0].astype(int) - grey[7, 0]).max() <= 1, "the opposite corner has none"


def test_a_map_that_is_almost_even_looks_so() -> None:
    """The scale reaches to twice the uniform weight at least, so that small differences stay small."""
    even = np.full((1, 2, 2), 0.25)
    even[0, 0] += [0.01, -0.01]
    drawn = heatmap(np.full((1, 32, 32, 3), 128, np.uint8), even).astype(int)
    assert np.ptp(drawn.reshape(-1, 3), axis=0).max() < 12
    assert scale_of(even) == 2
    assert scale_of(np.eye(4)[None] / 4) == 4
