import hashlib
import http.server
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from cfnsr.errors import InputError
from cfnsr.media import face
from cfnsr.media.decode import decode
from cfnsr.media.errors import MediaError
from cfnsr.media.face import (
    FaceDetector,
    Follower,
    Track,
    check_found,
    crop,
    cut,
    cut_faces,
    fill,
    people_of,
    smooth,
    squares_from_boxes,
    squares_from_landmarks,
    yunet_here,
    yunet_weights,
)
from cfnsr.media.openface import OpenFaceTrack

NOBODY = np.empty((0, 5), np.float32)


def box(x: float, y: float = 100, width: float = 80, height: float = 110, score: float = 0.9) -> np.ndarray:
    return np.array([x, y, width, height, score], np.float32)


def tracks(detections: list[np.ndarray]) -> list[Track]:
    """Of everyone, the largest first."""
    follower = Follower()
    found = [follower.add(faces) for faces in detections]
    return [person for _, person in people_of(found, np.arange(len(found)))]


@pytest.fixture
def detector(yunet: Path) -> FaceDetector:
    return FaceDetector(yunet)


def test_a_moving_face_is_one_track_with_gaps_interpolated() -> None:
    seen = [np.stack([box(10 * frame)]) if frame % 3 else NOBODY for frame in range(1, 11)]
    (found,) = tracks(seen)
    assert found.found.tolist() == [bool(frame % 3) for frame in range(1, 11)]
    np.testing.assert_allclose(found.boxes[:, 0], 10 * np.arange(1, 11))
    np.testing.assert_allclose(found.boxes[:, 1:], [[100, 80, 110]] * 10)
    assert found.score.tolist() == pytest.approx([0.9 * bool(frame % 3) for frame in range(1, 11)])


def test_people_are_kept_apart_and_the_main_one_comes_first() -> None:
    """Two people approach each other, named in changing order; a third, larger, passes for one frame."""
    seen = []
    for frame in range(20):
        faces = [box(5 * frame, width=60, height=80), box(400 - 5 * frame, width=90, height=120)]
        seen.append(np.stack(faces[:: 1 if frame % 2 else -1]))
    seen[7] = np.vstack([seen[7], box(700, width=300, height=400)])
    people = tracks(seen)
    assert [person.found.sum() for person in people] == [20, 20, 1]
    np.testing.assert_allclose(people[0].boxes[:, 0], 400 - 5 * np.arange(20))
    np.testing.assert_allclose(people[1].boxes[:, 0], 5 * np.arange(20))


def linked(detections: list[np.ndarray], forget: int | None = None) -> list[list[int]]:
    """Whose each frame's faces are, by the rule and nothing else: every pair is looked at, nearest first."""
    last: dict[int, tuple[int, np.ndarray]] = {}
    count, people = 0, []
    for frame, faces in enumerate(detections):
        pairs = []
        for person, (seen, before) in last.items():
            if forget is not None and frame - seen > forget:
                continue
            for place, after in enumerate(faces):
                both = before.astype(float), after.astype(float)
                sides = sorted(np.sqrt(each[2] * each[3]) for each in both)
                middles = [each[:2] + each[2:4] / 2 for each in both]
                distance = np.linalg.norm(middles[0] - middles[1]) / sides[1] / (frame - seen)
                if distance <= 1 and sides[1] < 2 * sides[0]:
                    pairs.append((distance, person, place))
        whose: dict[int, int] = {}
        for _, person, place in sorted(pairs):
            if place not in whose and person not in whose.values():
                whose[place] = person
        for place in range(len(faces)):
            if place not in whose:
                whose[place], count = count, count + 1
        last |= {whose[place]: (frame, face) for place, face in enumerate(faces)}
        people.append([whose[place] for place in range(len(faces))])
    return people


def crowd(seed: int, frames: int = 40) -> list[np.ndarray]:
    """Some faces that wander, come and go, and change their size."""
    dice = np.random.default_rng(seed)
    places = dice.uniform(0, 500, (5, 2))
    sides = dice.uniform(40, 150, 5)
    detections = []
    for _ in range(frames):
        places = places + dice.normal(0, 80, (5, 2))
        sides = np.clip(sides * dice.uniform(0.6, 1.6, 5), 20, 300)
        boxes = np.column_stack([places, sides, 1.3 * sides, dice.uniform(0.6, 1, 5)])
        detections.append(dice.permutation(boxes[dice.random(5) < 0.6]).astype(np.float32))
    return detections


@pytest.mark.parametrize("forget", [None, 1, 4])
@pytest.mark.parametrize("seed", range(5))
def test_people_are_linked_by_the_nearest(seed: int, forget: int | None) -> None:
    detections = crowd(seed)
    expected = linked(detections, forget)
    assert len({person for frame in expected for person in frame}) > 6, "some come and go"
    follower = Follower(forget)
    found = []
    for faces, whose in zip(detections, expected, strict=True):
        people = follower.add(faces)
        assert {person: faces[place].tolist() for place, person in enumerate(whose)} == {
            person: face.tolist() for person, face in people.items()
        }
        found.append(people)
    if forget is not None:
        return
    sums: dict[int, float] = {}
    boxes: dict[int, list[np.ndarray]] = {}
    for faces, whose in zip(detections, expected, strict=True):
        for person, found_at in zip(whose, faces, strict=True):
            sums[person] = sums.get(person, 0.0) + float(np.sqrt(found_at[2] * found_at[3]))
            boxes.setdefault(person, []).append(found_at)
    order = sorted(sums, key=lambda person: (-sums[person], person))
    assert [person for person, _ in people_of(found, np.arange(len(found)))] == order
    for person, one in people_of(found, np.arange(len(found))):
        assert one.found.tolist() == [person in whose for whose in expected]
        kept = np.column_stack([one.boxes, one.score])
        np.testing.assert_array_equal(kept[one.found], np.array(boxes[person]))
        assert not one.score[~one.found].any()


def test_who_is_gone_for_long_is_forgotten() -> None:
    face = np.stack([box(100)])
    for forget, expected in ((None, 0), (6, 0), (5, 1), (1, 1)):
        follower = Follower(forget)
        assert list(follower.add(face)) == [0]
        for _ in range(5):
            assert follower.add(NOBODY) == {}
        assert list(follower.add(face)) == [expected], forget
        assert len(follower._last) == (2 if forget is None and expected else 1)


def test_people_of_no_frames_and_of_nobody() -> None:
    assert (
        people_of([], np.empty(0)) == []
        and people_of([{}, {}], np.arange(2)) == []
        and tracks([NOBODY]) == []
    )


def test_a_followed_face_is_cut() -> None:
    """Pictures in a list or in one array."""
    frames = np.random.default_rng(0).integers(0, 255, (6, 240, 320, 3), np.uint8)
    times = np.arange(6) / 10
    seen = [np.stack([box(20 + 3 * number), box(200, width=40, height=50)]) for number in range(6)]
    person = tracks(seen)[0]
    for pictures in (frames, list(frames)):
        found = cut(pictures, times, person, size=32, margin=0.4)
        np.testing.assert_allclose(found.squares, smooth(squares_from_boxes(person.boxes, 0.4), times))
        np.testing.assert_array_equal(found.crops, crop(frames, found.squares, 32))


@pytest.mark.parametrize(("shown", "of"), [(0, 30), (14, 30), (1, 3)])
def test_too_few_frames_with_a_face(shown: int, of: int) -> None:
    with pytest.raises(MediaError, match=f"only {shown} of {of}") as caught:
        check_found(np.arange(of) < shown)
    assert caught.value.reason == "no face"
    check_found(np.arange(30) < 15)


def ibug_face(height: float, x: float, y: float) -> np.ndarray:
    """68 points whose brows begin at y and whose chin lies `height` below; ears around x."""
    points = np.zeros((68, 2))
    angles = np.linspace(np.pi, 0, 17)
    points[:17] = np.column_stack([np.cos(angles) * 0.984 / 2, 0.3 + 0.7 * np.sin(angles)])  # jaw
    points[17:27] = np.column_stack([np.linspace(-0.4, 0.4, 10), np.abs(np.linspace(-1, 1, 10)) * 0.06])
    points[17:27, 1] -= points[17:27, 1].min()
    points[27:] = np.random.default_rng(0).uniform([-0.3, 0.1], [0.3, 0.85], (41, 2))
    return points * height + [x, y]


def test_points_and_boxes_of_one_face_give_one_square() -> None:
    """The box as measured: 1.376 times as high, from 0.395 above the points to 0.02 above the chin."""
    points = np.stack([ibug_face(200, 320, 150), ibug_face(100, 50, 60)])
    boxes = np.array(
        [[320 - 0.951 * 100, 150 - 79, 0.951 * 200, 275.2], [50 - 0.951 * 50, 60 - 39.5, 0.951 * 100, 137.6]]
    )
    ours, theirs = squares_from_landmarks(points), squares_from_boxes(boxes)
    np.testing.assert_allclose(ours[:, :2], theirs[:, :2], atol=0.02 * 137)
    np.testing.assert_allclose(ours[:, 2], theirs[:, 2], rtol=0.02)
    x, y, side = ours[0]
    low, high = np.array([x, y]) - side / 2, np.array([x, y]) + side / 2
    assert (low < [320 - 98.4, 150 - 79]).all() and (high > [320 + 98.4, 350]).all()


def test_the_margin_is_a_part_of_the_face() -> None:
    boxes = np.array([[10.0, 20.0, 60.0, 100.0]])
    assert squares_from_boxes(boxes, margin=0).tolist() == [[40, 70, 100]]
    assert squares_from_boxes(boxes, margin=0.5).tolist() == [[40, 70, 150]]
    tight, wide = (squares_from_landmarks(ibug_face(100, 50, 60)[None], margin) for margin in (0.0, 0.5))
    np.testing.assert_allclose(wide[0], tight[0] * [1, 1, 1.5])


def test_smoothing_takes_out_jitter_and_outliers_but_follows_the_head() -> None:
    dice = np.random.default_rng(0)
    times = np.linspace(0, 3, 30)
    path = np.column_stack([300 + 60 * times, 200 + 20 * np.sin(1.5 * times), np.full(30, 250.0)])
    seen = path + dice.normal(0, 3, path.shape)
    seen[11] += [150, -90, 120]
    kept = smooth(seen, times)
    bend = [np.abs(np.diff(squares, 2, axis=0)).mean() for squares in (seen, kept)]
    assert bend[1] < bend[0] / 10
    assert np.abs(kept - path).max() < 6
    assert np.abs(kept[[0, -1]] - path[[0, -1]]).max() < 6
    assert np.ptp(kept[:, 2]) < 6


def test_smoothing_leaves_steady_movement_and_distant_frames_alone() -> None:
    times = np.linspace(0, 3, 30)
    steady = np.column_stack([300 + 60 * times, 200 - 40 * times, np.full(30, 250.0)])
    np.testing.assert_allclose(smooth(steady, times), steady, atol=1e-6)
    apart = np.random.default_rng(0).uniform(100, 300, (10, 3))
    np.testing.assert_allclose(smooth(apart, 20.0 * np.arange(10)), apart, atol=1e-6)
    for count in (1, 2, 3):
        np.testing.assert_allclose(smooth(steady[:count], times[:count]), steady[:count], atol=1e-6)
    repeated = smooth(steady[[0] * 5], np.zeros(5))
    np.testing.assert_allclose(repeated, steady[[0] * 5], atol=1e-6)


def test_a_crop_of_the_whole_frame_is_the_frame() -> None:
    frames = np.random.default_rng(0).integers(0, 255, (2, 64, 64, 3), np.uint8)
    np.testing.assert_array_equal(crop(frames, np.array([[32, 32, 64], [32, 32, 64]]), 64), frames)
    moved = crop(frames, np.array([[36, 30, 64], [32, 32, 32]]), 64)
    np.testing.assert_array_equal(moved[0, 2:, :60], frames[0, :62, 4:])
    np.testing.assert_array_equal(moved[0, 2:, 60:], np.repeat(frames[0, :62, -1:], 4, axis=1))  # the border
    assert moved.shape == (2, 64, 64, 3) and moved.dtype == np.uint8


def test_a_shrunk_crop_averages() -> None:
    """Stripes one pixel wide must become even grey, not a coarser pattern."""
    frame = np.zeros((1, 600, 600, 3), np.uint8)
    frame[:, :, ::2] = 255
    for side in (450.0, 517.3, 599.0, *np.arange(201, 600, 7.3)):
        shrunk = crop(frame, np.array([[300, 300, side]]), 100)[0, 5:-5, 5:-5]
        most = 40 if side in (450.0, 517.3, 599.0) else 43  # 42 too where points are a pixel apart
        assert np.abs(shrunk.astype(float) - 127.5).max() < most
        assert shrunk.mean() == pytest.approx(127.5, abs=2)
    exact = crop(frame, np.array([[300, 300, 400]]), 100)
    assert set(np.unique(exact)) <= {127, 128}


def test_a_crop_lies_where_the_square_says() -> None:
    """A disc cut by a square centred on it comes out in the middle, to a quarter pixel."""
    rows, columns = np.mgrid[0:300, 0:400] + 0.5
    for x, y, side in ((200.0, 150.0, 100.0), (123.4, 77.7, 61.8), (300.2, 200.9, 333.3)):
        disc = np.hypot(columns - x, rows - y) < side / 5
        frame = np.where(disc[..., None], 255, 0).astype(np.uint8).repeat(3, axis=2)[None]
        cut = crop(frame, np.array([[x, y, side]]), 64)[0, ..., 0].astype(float)
        centre = np.array([(cut.sum(axis) * (np.arange(64) + 0.5)).sum() for axis in (0, 1)]) / cut.sum()
        np.testing.assert_allclose(centre, 32, atol=0.25)


def test_fill_interpolates_rows_of_any_shape() -> None:
    values = np.arange(20.0).reshape(5, 2, 2)
    spoilt = values.copy()
    spoilt[[0, 2]] = np.nan
    filled = fill(spoilt, np.array([False, True, False, True, True]), np.arange(5))
    np.testing.assert_allclose(filled[1:], values[1:])
    np.testing.assert_allclose(filled[0], values[1])


def openface_track(landmarks: np.ndarray | None, success: np.ndarray) -> OpenFaceTrack:
    rows = np.arange(len(success))
    confidence = np.where(success, 0.98, 0).astype(np.float32)
    points = None if landmarks is None else landmarks.astype(np.float32)
    units = np.zeros((len(rows), 35), np.float32)
    return OpenFaceTrack(rows, rows / 30, confidence, success, points, units, None, None)


def test_faces_are_cut_by_openface_points() -> None:
    """The points of lost frames are zeros, as OpenFace writes them, and must not pull the square."""
    frames = np.random.default_rng(0).integers(0, 255, (8, 240, 320, 3), np.uint8)
    points = np.stack([ibug_face(80, 150 + 2 * i, 90) for i in range(8)])
    success = np.array([True, True, False, True, True, True, False, True])
    points[~success] = 0
    times = np.arange(8) / 10
    faces = cut_faces(frames, times, openface_track(points, success), size=96)
    assert faces.crops.shape == (8, 96, 96, 3)
    assert faces.found.tolist() == success.tolist()
    np.testing.assert_allclose(faces.squares[:, 0], 150 + 2 * np.arange(8), atol=1.5)
    np.testing.assert_allclose(faces.squares[:, 2], 80 * 1.376 * 1.2, rtol=0.01)
    np.testing.assert_array_equal(faces.crops, crop(frames, faces.squares, 96))

    with pytest.raises(MediaError, match="only 2 of 8"):
        cut_faces(frames, times, openface_track(points, np.arange(8) < 2))
    with pytest.raises(ValueError, match="landmarks"):
        cut_faces(frames, times, openface_track(None, success))


def test_the_six_real_clips_show_a_face_in_every_frame(shared: Path, detector: FaceDetector) -> None:
    clips = sorted((shared / "clips").rglob("*.mp4")) + sorted((shared / "clips").rglob("*.flv"))
    assert len(clips) == 6
    for path in clips:
        found = decode(path, frames=8, audio=False)
        assert found.frames is not None
        (person,) = tracks([detector.detect(frame) for frame in found.frames])
        faces = cut(found.frames, found.times, person)
        assert faces.found.all() and faces.score.min() > 0.85
        height, width = found.frames.shape[1:3]
        x, y, side = faces.squares.T
        assert np.abs(x / width - 0.5).max() < 0.1 and np.abs(y / height - 0.5).max() < 0.15
        assert 0.4 * height < side.min() and np.ptp(side) < 0.03 * side.mean()
        # In its crop the face stands in the middle and fills most of the height.
        (again,) = detector.detect(faces.crops[3])
        assert again[:2] + again[2:4] / 2 == pytest.approx([112, 112], abs=14)
        assert float(again[3]) == pytest.approx(224 / 1.2, rel=0.15)


def test_the_detector_measures_in_pixels_of_the_frame(shared: Path, detector: FaceDetector) -> None:
    """A frame of twice the size, on its side, or cut to odd sizes gives the same face."""
    found = decode(shared / "clips/ravdess/Actor_06/01-01-08-01-01-01-06.mp4", frames=1, audio=False)
    assert found.frames is not None
    frame = found.frames[0]
    (face_box,) = detector.detect(frame)
    (large,) = detector.detect(frame.repeat(2, axis=0).repeat(2, axis=1))
    np.testing.assert_allclose(large[:4], 2 * face_box[:4], atol=8)
    (cut,) = detector.detect(frame[7:, 33:-54])
    np.testing.assert_allclose(cut[:4] + np.array([33, 7, 0, 0]), face_box[:4], atol=6)
    (tall,) = detector.detect(frame[:, 150:490])
    np.testing.assert_allclose(tall[:4] + np.array([150, 0, 0, 0]), face_box[:4], atol=6)
    assert detector.detect(np.zeros((9, 7, 3), np.uint8)).shape == (0, 5)


def test_a_video_without_a_face(detector: FaceDetector) -> None:
    assert not len(detector.detect(np.random.default_rng(0).integers(0, 255, (90, 120, 3), np.uint8)))


def test_weights_that_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CFNSR_YUNET", str(tmp_path / "nowhere.onnx"))
    with pytest.raises(InputError, match=r"CFNSR_YUNET names .*nowhere"):
        FaceDetector()
    other = tmp_path / "other.onnx"
    other.write_text("no model")
    monkeypatch.setenv("CFNSR_YUNET", str(other))
    assert yunet_weights() == other
    with pytest.raises(InputError, match="no YuNet model") as caught:
        FaceDetector()
    assert "\n" not in str(caught.value)


CONTENT = b"the weights" * 100


@pytest.fixture
def server() -> Iterator[str]:
    class Weights(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            known = self.path == "/yunet.onnx"
            self.send_response(200 if known else 404)
            self.end_headers()
            self.wfile.write(CONTENT if known else b"")

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Weights) as serving:
        thread = threading.Thread(target=serving.serve_forever, args=(0.02,))
        thread.start()
        yield f"http://127.0.0.1:{serving.server_port}"
        serving.shutdown()
        thread.join()


@pytest.fixture
def no_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CFNSR_YUNET", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(face, "YUNET_SHA256", hashlib.sha256(CONTENT).hexdigest())


@pytest.mark.usefixtures("no_weights")
def test_spoilt_weights_are_refused(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(face, "YUNET_URL", f"{server}/yunet.onnx")
    monkeypatch.setattr(face, "YUNET_MIRRORS", ())
    monkeypatch.setattr(face, "YUNET_SHA256", "0" * 64)
    with pytest.raises(InputError, match="set CFNSR_YUNET"):
        FaceDetector()


@pytest.mark.usefixtures("no_weights")
def test_weights_come_from_a_mirror(
    server: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The bytes decide: what is spoilt is fetched again. Nothing but the refusal is said."""
    monkeypatch.setattr(face, "YUNET_URL", f"{server}/gone/yunet.onnx")
    monkeypatch.setattr(face, "YUNET_MIRRORS", ())
    assert yunet_here() is None
    with pytest.raises(InputError, match=r"without a network, download .*cfnsr doctor"):
        yunet_weights()
    monkeypatch.setattr(face, "YUNET_MIRRORS", ("http://127.0.0.1:9/yunet.onnx", f"{server}/yunet.onnx"))
    fetched = yunet_weights()
    assert fetched.read_bytes() == CONTENT and yunet_here() == fetched
    with monkeypatch.context() as offline:
        offline.setattr(face, "YUNET_MIRRORS", ())
        assert yunet_weights() == fetched, "once is enough"
    fetched.write_bytes(b"spoilt")
    assert yunet_here() is None and yunet_weights().read_bytes() == CONTENT
    assert capfd.readouterr() == ("", "")


def test_weights_that_git_did_not_fetch(tmp_path: Path) -> None:
    (tmp_path / "y.onnx").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(InputError, match="git lfs pull"):
        FaceDetector(tmp_path / "y.onnx")


def test_weights_of_any_name(yunet: Path, tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"y\xe9.onnx")
    path.write_bytes(yunet.read_bytes())
    assert FaceDetector(path).detect(np.zeros((48, 64, 3), np.uint8)).shape == (0, 5)
