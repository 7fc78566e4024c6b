"""Videos with box, label and bars: measured where they are drawn, and what stays of the source."""

from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from cfnsr.inference.annotate import MARK, FacePositions, Overlay, Square, annotate
from cfnsr.inference.lettering import letters
from cfnsr.inference.palette import EMOTIONS, rgb
from cfnsr.inference.timeline import Prediction, Window
from cfnsr.media.encode import write_audio
from cfnsr.media.errors import MediaError

NAMES = tuple(EMOTIONS)
SIZE = (640, 360)  # width, height


def window(start: float, end: float, best: str | None, face: bool = True, speech: bool = True) -> Window:
    told = None if best is None else {name: 0.72 if name == best else 0.04 for name in NAMES}
    uses = tuple(name for name, there in (("video", face), ("audio", speech)) if there and told)
    return Window(start, end, told, face, speech, uses)


def faces(*rows: tuple[float, float, float, float]) -> NDArray[np.float32]:
    """Seconds, centres and sides."""
    return np.array(rows, np.float32).reshape(-1, 4)


def still(x: float, y: float, side: float, end: float = 10.0) -> NDArray[np.float32]:
    return faces(*((at / 10, x, y, side) for at in range(round(10 * end) + 1)))


def told(*windows: Window, where: NDArray[np.float32] | None = None, person: int | None = None) -> Prediction:
    return Prediction("a.mp4", None, None, windows, person=person, faces=faces() if where is None else where)


def drawn(
    prediction: Prediction, second: float, size: tuple[int, int] = SIZE, shade: int = 60
) -> NDArray[np.uint8]:
    width, height = size
    overlay = Overlay(prediction, width, height)
    picture = np.full((height + overlay.layout.below, width, 3), shade, np.uint8)
    picture[height:] = 255
    overlay.draw(picture, second)
    return picture


def pixels(picture: NDArray[np.uint8], colour: str | tuple[int, int, int]) -> NDArray[np.bool_]:
    there: NDArray[np.bool_] = (picture == (rgb(colour) if isinstance(colour, str) else colour)).all(axis=2)
    return there


def frame(picture: NDArray[np.uint8], colour: str) -> tuple[float, float, float] | None:
    """Centre and side of a square drawn in a colour, by its long straight lines."""
    there = pixels(picture, colour)
    columns = np.flatnonzero(there.sum(axis=0) > 0.15 * len(there))
    rows = np.flatnonzero(there.sum(axis=1) > 0.15 * len(there))
    if not len(columns):
        return None
    side = float(columns[-1] - columns[0])
    return (columns[0] + columns[-1]) / 2, rows[-1] - side / 2, side  # the label may hide the upper line


def test_the_square_follows_the_face() -> None:
    where = faces(*((at / 4, 200 + 40 * at, 180 + 10 * at, 100 + 4 * at) for at in range(9)))
    prediction = told(window(0, 3, "angry"), where=where)
    for second in (0.0, 0.3, 1.0, 1.37, 2.0):
        found = frame(drawn(prediction, second), EMOTIONS["angry"])
        assert found is not None
        expected = [np.interp(second, where[:, 0], where[:, column]) for column in (1, 2, 3)]
        assert found == pytest.approx(expected, abs=5)


@pytest.mark.parametrize("second", [0.5, 1.5, 2.5, 3.5])
def test_where_there_is_no_face_there_is_no_square_and_it_is_said(second: float) -> None:
    prediction = told(
        window(0, 1, "angry"),
        window(1, 2, "angry", face=False),
        window(2, 3, None, face=False, speech=False),
        window(3, 4, "angry", speech=False),
        where=still(320, 180, 120),
    )
    picture = drawn(prediction, second)
    seen = frame(picture, EMOTIONS["angry"]) is not None
    marked = bool(pixels(picture, MARK).any())
    assert (seen, marked) == {0.5: (True, False), 1.5: (False, True), 2.5: (False, True), 3.5: (True, True)}[
        second
    ]


def test_a_face_out_of_sight_for_a_while() -> None:
    rows = [(at / 10, 320.0, 180.0, 120.0) for at in [*range(10), *range(25, 40)]]
    prediction = told(window(0, 4, "angry"), where=faces(*rows))
    assert frame(drawn(prediction, 0.8), EMOTIONS["angry"]) is not None
    gone = drawn(prediction, 1.7)
    assert frame(gone, EMOTIONS["angry"]) is None
    assert pixels(gone, MARK).any()
    assert frame(drawn(prediction, 3.0), EMOTIONS["angry"]) is not None


def test_positions_between_squares() -> None:
    where = FacePositions(faces((0.2, 14, 10, 8), (0.0, 10, 10, 8), (0.4, 100, 50, 8), (0.6, 100, 50, 8)))
    assert where.at(0.1) == pytest.approx(Square(12, 10, 8))
    assert where.at(0.29) == Square(14, 10, 8), "a leap is another face"
    assert where.at(0.31) == Square(100, 50, 8)
    assert where.at(-0.2) == Square(10, 10, 8)
    assert where.at(0.8) == Square(100, 50, 8)
    assert where.at(5) is None
    assert FacePositions(faces()).at(0) is None
    assert FacePositions(faces((3, 1, 2, 4))).at(3.1) == Square(1, 2, 4)
    begin, end = where.times[0], where.times[-1]
    assert not where.missing(begin, end + 0.2) and where.missing(0.0, end + 0.3)
    sparse = FacePositions(faces(*((float(at), 10.0 + at, 10, 8) for at in range(30))))
    assert sparse.at(7.5) == Square(17.5, 10, 8), "a window of 30 s has a square each second"


def test_bars_are_as_long_as_the_probabilities() -> None:
    shares = {"neutral": 0.1, "happy": 0.5, "sad": 0.25, "angry": 0.15}
    overlay = Overlay(told(Window(0, 1, shares, None, True, ("audio",))), *SIZE)
    picture = np.full((SIZE[1], SIZE[0], 3), 60, np.uint8)
    overlay.draw(picture, 0.5)
    for name, share in shares.items():
        lengths = pixels(picture, EMOTIONS[name]).sum(axis=1)
        assert lengths.max() == pytest.approx(share * overlay.layout.bar, abs=2)
    tops = [int(np.flatnonzero(pixels(picture, EMOTIONS[name]).sum(axis=1) > 3)[0]) for name in shares]
    assert np.diff(tops).tolist() == [overlay.layout.row] * 3


def test_the_answer_changes_when_the_window_does() -> None:
    prediction = told(window(0, 2, "happy"), window(1, 3, "angry"), where=still(320, 180, 100))
    for second, name in ((0.2, "happy"), (1.45, "happy"), (1.55, "angry"), (2.9, "angry"), (3.3, "angry")):
        assert frame(drawn(prediction, second), EMOTIONS[name]) is not None, second
    after = drawn(prediction, 3.6)
    assert (after == 60).all(), "nothing is said of what was not looked at"


def test_two_people_have_their_own() -> None:
    first = told(window(0, 4, "happy"), where=still(220, 180, 100), person=1)
    second = told(window(0, 2, "angry"), where=still(420, 180, 100, end=2), person=2)
    whole = told(window(0, 4, "happy"), window(4, 5, None, face=False, speech=False))
    whole = replace(whole, people=(second, first))
    both = drawn(whole, 1.0)
    assert frame(both, EMOTIONS["happy"]) == pytest.approx((220, 180, 100), abs=5)
    assert frame(both, EMOTIONS["angry"]) == pytest.approx((420, 180, 100), abs=5)
    bar = np.flatnonzero(pixels(both, EMOTIONS["happy"]).any(axis=0))
    assert bar.min() < 100, "the panels stand in the order of the faces"
    alone = drawn(whole, 3.5)
    assert frame(alone, EMOTIONS["happy"]) is not None
    assert frame(alone, EMOTIONS["angry"]) is None
    assert pixels(drawn(whole, 4.5), MARK).any(), "nobody: no answer"


@pytest.mark.parametrize("size", [(320, 240), (426, 240), (240, 426), (640, 360), (3840, 2160)])
def test_letters_are_legible_and_panels_fit(size: tuple[int, int]) -> None:
    width, height = size
    prediction = told(
        window(0, 1, "surprised"),
        window(1, 2, None, face=False, speech=False),
        where=still(width / 2, height * 0.3, height / 6),
    )
    layout = Overlay(prediction, width, height).layout
    assert layout.size >= 11
    assert layout.size >= 0.02 * min(width, height)
    assert layout.bars
    ((x, y),) = layout.corners.values()
    assert x >= 0 and x + layout.width <= width
    assert y >= 0 and y + layout.height <= height + layout.below
    assert layout.width * layout.height < 0.35 * width * height
    assert letters("surprised", layout.size).width < layout.width


@pytest.mark.parametrize(("x", "y"), [(120, 90), (520, 90), (120, 270), (520, 270)])
def test_the_panel_keeps_off_the_face(x: float, y: float) -> None:
    layout = Overlay(told(window(0, 9, "calm"), where=still(x, y, 180)), *SIZE).layout
    ((left, top),) = layout.corners.values()
    assert layout.below == 0
    wide = min(x + 90, left + layout.width) - max(x - 90, left)
    high = min(y + 90, top + layout.height) - max(y - 90, top)
    assert wide <= 0 or high <= 0


def test_bars_that_would_hide_a_face_stand_beneath_the_picture() -> None:
    size = (320, 240)
    close = told(window(0, 9, "calm"), where=still(160, 120, 220))
    layout = Overlay(close, *size).layout
    assert layout.below >= layout.height and layout.below % 2 == 0
    assert all(y == size[1] for _, y in layout.corners.values())
    picture = drawn(close, 1.0, size)
    assert (picture[40:220, 60:260] == 60).all(), "the face is free"
    assert pixels(picture[size[1] :], EMOTIONS["calm"]).any()


@pytest.mark.parametrize("size", [(2, 2), (16, 16), (64, 48), (100, 20)])
def test_the_smallest_pictures(size: tuple[int, int]) -> None:
    for second in (0.5, 1.5):
        prediction = told(window(0, 1, "happy"), window(1, 2, None, False, False), where=still(5, 5, 12))
        assert drawn(prediction, second, size).shape[1] == size[0]


def test_squares_beyond_the_border() -> None:
    for x, y in ((-30, 50), (660, 50), (320, -20), (320, 380), (-500, -500)):
        picture = drawn(told(window(0, 1, "happy"), where=still(x, y, 100)), 0.5, (640, 360))
        assert picture.shape[:2] == (360, 640) and np.ptp(picture) > 0, (x, y)


def test_a_phone_film_is_drawn_upon_as_it_is_shown(tmp_path: Path) -> None:
    """The square is in pixels of the upright picture, as the face detector saw it."""
    path = tmp_path / "in.mp4"
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        stream.set_display_rotation(90)
        for _ in range(5):
            grey = av.VideoFrame.from_ndarray(np.full((240, 320, 3), 60, np.uint8), "rgb24")
            file.mux(stream.encode(grey))
        file.mux(stream.encode(None))
    prediction = told(window(0, 1, "angry"), where=still(150, 220, 90))
    out = annotate(path, prediction, tmp_path / "out.mp4")
    with av.open(str(out)) as container:
        picture = next(container.decode(video=0)).to_ndarray(format="rgb24")
    assert picture.shape[1] == 240 and picture.shape[0] >= 320
    red = np.abs(picture.astype(int) - rgb(EMOTIONS["angry"])).max(axis=2) < 70
    columns = np.flatnonzero(red[190:250].sum(axis=0) > 40)
    assert [columns[0], columns[-1]] == pytest.approx([105, 195], abs=4)


def test_sound_has_nothing_to_draw_upon(tmp_path: Path) -> None:
    sound = write_audio(tmp_path / "in.wav", np.zeros(8000, np.float32), 8000)
    with pytest.raises(MediaError, match="no pictures") as error:
        annotate(sound, told(window(0, 2, "angry")), tmp_path / "out.mp4")
    assert error.value.reason == "no picture" and list(tmp_path.iterdir()) == [sound]


def test_real_clip(shared: Path, tmp_path: Path, yunet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The square drawn is the one around the face that the detector finds in the source."""
    from cfnsr.media.decode import decode
    from cfnsr.media.face import FaceDetector, Follower, people_of, smooth, squares_from_boxes

    source = shared / "clips" / "ravdess" / "Actor_06" / "01-01-08-01-01-01-06.mp4"
    clip = decode(source, frames=10, audio=False)
    assert clip.frames is not None
    detector, follower = FaceDetector(), Follower()
    found = [detector.detect(picture) for picture in clip.frames]
    ((_, person),) = people_of([follower.add(faces) for faces in found], clip.times)
    squares = smooth(squares_from_boxes(person.boxes), clip.times)
    where = np.column_stack([clip.times, squares]).astype(np.float32)
    out = annotate(source, told(window(0, 3, "angry"), where=where), tmp_path / "out.mp4")
    after = decode(out, frames=10, audio=False)
    assert after.frames is not None
    assert after.frame_count == clip.frame_count
    for picture, (x, y, side), (face, *_) in zip(after.frames, squares, found, strict=True):
        red = np.abs(picture.astype(int) - rgb(EMOTIONS["angry"])).max(axis=2) < 60
        columns = np.flatnonzero(red.sum(axis=0) > 0.7 * side)
        assert [columns[0], columns[-1]] == pytest.approx([x - side / 2, x + side / 2], abs=5)
        assert columns[0] < face[0] and face[0] + face[2] < columns[-1]
        assert y - side / 2 < face[1] and face[1] + face[3] < y + side / 2
