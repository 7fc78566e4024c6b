"""The picture of a timeline: measured where the emotions and the missing stretches stand."""

import re
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from cfnsr.errors import InputError
from cfnsr.inference.palette import EMOTIONS, rgb
from cfnsr.inference.plot import MISSING, cells, plot
from cfnsr.inference.timeline import Prediction, Segment, Window, most_probable, summary

NAMES = tuple(EMOTIONS)


def window(start: float, end: float, best: str | None, face: bool = True, speech: bool = True) -> Window:
    told = None if best is None else {name: 0.79 if name == best else 0.03 for name in NAMES}
    return Window(start, end, told, face, speech)


def told(*windows: Window, person: int | None = None, file: str = "interview.mp4") -> Prediction:
    mean = summary(windows)
    return Prediction(file, most_probable(mean), mean, windows, person=person)


def read(path: Path) -> NDArray[np.uint8]:
    picture = cv2.imread(str(path))
    assert picture is not None
    return cv2.cvtColor(picture, cv2.COLOR_BGR2RGB).astype(np.uint8)


def extent(picture: NDArray[np.uint8], colour: str) -> tuple[int, int, int]:
    """The first and last column, and the number of pixels, of a colour."""
    there = (picture == rgb(colour)).all(axis=2)
    columns = np.flatnonzero(there.sum(axis=0) > 3)  # letters are smoother
    return int(columns[0]), int(columns[-1]), int(there.sum())


MIXED = told(
    window(0, 4, "happy"),
    window(4, 6, "sad"),
    window(6, 10, None, face=False, speech=False),
    window(10, 12, "sad", face=False),
)


def test_colours_stand_where_they_are_the_answer(tmp_path: Path) -> None:
    picture = read(plot(MIXED, tmp_path / "new" / "timeline.png"))
    assert (picture[[0, -1]] == 255).all() and (picture[:, [0, -1]] == 255).all(), "nothing is cut off"
    happy, sad, missing = (
        extent(picture, colour) for colour in (EMOTIONS["happy"], EMOTIONS["sad"], MISSING)
    )
    begin, second = happy[0], (sad[1] - happy[0]) / 12
    assert happy[1] - begin == pytest.approx(4 * second, abs=2)
    assert sad[0] - begin == pytest.approx(4 * second, abs=2)
    assert missing[0] - begin == pytest.approx(6 * second, abs=2)
    assert missing[1] - begin == pytest.approx(12 * second, abs=2), "no face, but an answer by voice"
    # no face 6 s, no speech 4 s, no answer 4 s
    strip = np.flatnonzero((picture == rgb(MISSING)).all(axis=2).sum(axis=1) > 3 * second)
    heights = np.diff(np.flatnonzero(np.diff(np.r_[-9, strip, strip[-1] + 9]) > 1))
    assert len(heights) == 3
    assert missing[2] == pytest.approx(heights.mean() * 14 * second, rel=0.05)
    assert (picture[:, int(begin + 7 * second), :] != rgb(EMOTIONS["sad"])).any(axis=1).all()


def test_the_second_best_is_pale(tmp_path: Path) -> None:
    close = {"happy": 0.55, "sad": 0.45}
    picture = read(plot(told(Window(0, 3, close, True, True)), tmp_path / "timeline.png"))
    assert extent(picture, EMOTIONS["happy"])[2] > 1000
    assert not (picture == rgb(EMOTIONS["sad"])).all(axis=2).any()


@pytest.mark.parametrize(("suffix", "begins"), [("png", b"\x89PNG"), ("SVG", b"<?xml"), ("pdf", b"%PDF")])
def test_the_suffix_names_the_format(tmp_path: Path, suffix: str, begins: bytes) -> None:
    short = told(Window(0, 3, {"happy": 1.0}, True, True))
    path = plot(short, tmp_path / f"timeline.{suffix}")
    content = path.read_bytes()
    assert content.startswith(begins)
    assert list(tmp_path.iterdir()) == [path]
    assert plot(short, path).read_bytes() == content, "the same timeline gives the same bytes"


def texts(path: Path) -> list[str]:
    return re.findall(r"<text[^>]*>([^<]*)</text>", path.read_text(encoding="utf-8"))


def test_everything_is_named(tmp_path: Path) -> None:
    shown = texts(plot(replace(MIXED, file="$1_{a}.mp4"), tmp_path / "timeline.svg"))
    assert {"$1_{a}.mp4", *NAMES, "no face", "no speech", "no answer", "0:10"} <= set(shown)
    assert f"happy {100 * (MIXED.probabilities or {})['happy']:.0f} % on the whole" in shown or (
        "sad" in " ".join(shown)
    )


def test_what_was_not_looked_for_has_no_strip(tmp_path: Path) -> None:
    heard = told(Window(0, 3, {"happy": 1.0}, None, True, ("audio",)))
    shown = texts(plot(heard, tmp_path / "timeline.svg"))
    assert "no speech" in shown
    assert "no face" not in shown


def test_several_people_have_panels(tmp_path: Path) -> None:
    first = told(window(0, 12, "happy"), person=1)
    second = told(window(0, 3, "angry"), window(9, 12, "angry"), person=2)
    whole = told(window(0, 12, "happy"), window(12, 15, None, face=False))
    whole = replace(whole, people=(first, second))
    shown = texts(plot(whole, tmp_path / "timeline.svg"))
    assert [text for text in shown if text.startswith(("person", "nobody"))] == [
        "person 1: happy 79 % on the whole",
        "person 2: angry 79 % on the whole",
        "nobody in the picture: no answer",
    ]
    picture = read(plot(replace(whole, people=(second,)), tmp_path / "timeline.png"))
    assert extent(picture, MISSING)[2] > 0, "where a person is gone, it is said"
    sure = Window(0, 12, {"happy": 1.0}, True, True)
    many = replace(told(sure), people=tuple(told(sure, person=number) for number in range(1, 13)))
    shown = texts(plot(many, tmp_path / "many.svg"))
    assert sum(text.startswith("person") for text in shown) == 8
    assert "interview.mp4 (and 4 more people)" in shown


@pytest.mark.parametrize(
    ("seconds", "labels"),
    [(2, {"0:00.0", "0:01.5"}), (59, {"0:00", "0:50"}), (600, {"10:00"}), (8000, {"0:00", "2:00:00"})],
)
def test_times(tmp_path: Path, seconds: int, labels: set[str]) -> None:
    shown = texts(plot(told(Window(0, seconds, {"happy": 1.0}, True, True)), tmp_path / "timeline.svg"))
    assert labels <= set(shown)
    assert sum(bool(re.fullmatch(r"[\d:.]+", text)) for text in shown) <= 10


def test_an_hour_is_drawn_by_means(tmp_path: Path) -> None:
    """The same share of each colour as of the answers, though there are more windows than pixels."""
    sure = {"happy": {"happy": 0.9, "angry": 0.1}, "angry": {"happy": 0.1, "angry": 0.9}}
    best = ["happy" if at % 1200 < 800 else "angry" for at in range(3600)]
    windows = [Window(at, at + 2.95, sure[name], True, True) for at, name in enumerate(best)]
    path = plot(told(*windows), tmp_path / "hour.png")
    picture = read(path)
    happy, angry = (extent(picture, EMOTIONS[name])[2] for name in ("happy", "angry"))
    assert happy / (happy + angry) == pytest.approx(2 / 3, abs=0.03)
    assert path.stat().st_size < 200_000


def test_cells_are_means_over_equal_times() -> None:
    """Against sums over a fine grid of moments, with gaps and abstention."""
    dice = np.random.default_rng(0)
    cut, at = [], 1.0
    for _ in range(40):
        length = float(dice.uniform(0.1, 2))
        share = float(dice.random())
        answer = {"a": share, "b": 1 - share} if dice.random() < 0.8 else None
        cut.append(Segment(at, at + length, answer, bool(dice.random() < 0.5), None))
        at += length + (float(dice.uniform(0, 1)) if dice.random() < 0.3 else 0)
    made = cells(cut, ["a", "b"], most=9)
    assert made.values.shape == (9, 2) and made.missing.shape == (9, 3)
    np.testing.assert_allclose(made.edges, np.linspace(cut[0].start, cut[-1].end, 10))
    for low, high, values, missing in zip(
        made.edges, made.edges[1:], made.values, made.missing, strict=False
    ):
        there = [
            each
            for moment in np.linspace(low, high, 20_001)
            for each in cut
            if each.start <= moment < each.end
        ]
        answered = [each.probabilities["a"] for each in there if each.probabilities is not None]
        assert values[0] == pytest.approx(np.mean(answered), abs=2e-3)
        assert values.sum() == pytest.approx(1)
        assert missing[0] == pytest.approx(np.mean([each.face is False for each in there]), abs=2e-3)
        assert missing[1] == 0
        assert missing[2] == pytest.approx(1 - len(answered) / len(there), abs=2e-3)


def test_cells_of_gaps_are_empty() -> None:
    made = cells([Segment(0, 1, None, True, True), Segment(2, 3, {"a": 1.0}, True, True)], ["a"])
    assert made.edges.tolist() == [0, 1, 2, 3]
    np.testing.assert_array_equal(made.values.ravel(), [np.nan, np.nan, 1])
    np.testing.assert_array_equal(made.missing[:, 2], [1, np.nan, 0])


def test_nothing_is_known_at_all(tmp_path: Path) -> None:
    shown = texts(plot(told(window(0, 3, None, face=False)), tmp_path / "timeline.svg"))
    assert {"no face", "no answer"} <= set(shown)


@pytest.mark.parametrize("name", ["timeline.jpg", "timeline", "timeline.csv"])
def test_other_suffixes_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=r"\.png"):
        plot(MIXED, tmp_path / name)
    with pytest.raises(InputError, match="no timeline"):
        plot(told(), tmp_path / "timeline.png")
    assert not list(tmp_path.iterdir())
