"""Pictures -> one person's face: found, followed, framed by a steady square and cut out."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from cfnsr.errors import InputError
from cfnsr.files import fetch, find_fetched, refuse_pointer
from cfnsr.media.errors import MediaError
from cfnsr.media.openface import OpenFaceTrack

Frames = NDArray[np.uint8] | Sequence[NDArray[np.uint8]]

SIZE = 224  # pixels of a crop's side
APART = 4 / 3  # pixels between the points that a shrunk crop averages, at most
MARGIN = 0.2  # room around the face, as a part of its height: a tenth on each side
LEAST_FOUND = 0.5  # of the frames must show the person

YUNET_FILE = "face_detection_yunet_2023mar.onnx"
YUNET_URL = f"https://media.githubusercontent.com/media/opencv/opencv_zoo/main/models/face_detection_yunet/{YUNET_FILE}"
# The same bytes: OpenCV's own copy on the Hugging Face hub, and the commit in which they came to be.
YUNET_MIRRORS = (
    f"https://huggingface.co/opencv/face_detection_yunet/resolve/main/{YUNET_FILE}",
    "https://media.githubusercontent.com/media/opencv/opencv_zoo/f12e12798e8314f7c074a6656816c048dcc95b7a/"
    f"models/face_detection_yunet/{YUNET_FILE}",
)
WITHOUT_NETWORK = (
    "without a network, download that file (230 kB) elsewhere, copy it here and set CFNSR_YUNET to its path"
)
YUNET_SHA256 = "8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4"
LONGEST_SIDE = 640  # pixels a frame is shrunk to before detection
LEAST_SCORE = 0.6
LOADING = threading.Lock()  # of a detector, by one thread at a time

# A face here is from hairline to chin. The detector's box is about that; the 68 points reach only from
# the brows to the chin. Measured on 60 frames of the three people of the real clips, with the points of
# MediaPipe's face mesh at the iBUG places: the box was 1.376 (deviation 0.03) times as high as the points,
# its centre 0.207 (0.015) of their height above theirs, its width 0.691 (0.02) of its own height, and the
# points 0.984 (0.03) times as wide as high.
FACE_PER_POINTS = 1.376
RISE_PER_POINTS = 0.207
BOX_WIDTH = 0.691  # of a face's height
POINTS_WIDTH = 0.984 / FACE_PER_POINTS  # of a face's height

MEDIAN_SECONDS = 0.5  # outliers shorter than half of this vanish
CENTRE_SECONDS = 0.2  # deviation of the smoothing window of the centre
SIDE_SECONDS = 0.8  # of the side: a face changes size less than it moves


@dataclass(frozen=True)
class Track:
    """One person's face through the sampled frames.

    Args:
        boxes: (T, 4) x, y, width, height in pixels; interpolated where the face was not found.
        found: (T,) the face was found in the frame.
        score: (T,) the detector's score from 0 to 1, 0 where not found.
    """

    boxes: NDArray[np.float64]
    found: NDArray[np.bool_]
    score: NDArray[np.float32]


@dataclass(frozen=True)
class Faces:
    """Cut-out faces with their squares.

    Args:
        crops: (T, size, size, 3) uint8 RGB.
        squares: (T, 3) centre x, centre y and side of each crop, in pixels of the frame.
        found: (T,) the face was found in the frame, not interpolated.
        score: (T,) the detector's score or OpenFace's confidence.
    """

    crops: NDArray[np.uint8]
    squares: NDArray[np.float64]
    found: NDArray[np.bool_]
    score: NDArray[np.float32]


class FaceDetector:
    """YuNet (Wu, Peng, Yu: YuNet, a tiny millisecond-level face detector, 2023) through OpenCV.

    Args:
        weights: the ONNX file; if not given that of `yunet_weights`.

    Raises:
        InputError: the weights are missing, cannot be fetched or cannot be loaded.
    """

    def __init__(self, weights: Path | str | None = None) -> None:
        self._path = Path(weights) if weights is not None else yunet_weights()
        self._networks = threading.local()  # OpenCV's keeps the size and the answer of one picture
        self._networks.yunet = self._load()

    def _load(self) -> Any:
        import cv2

        refuse_pointer(self._path)
        with LOADING:
            quiet = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)  # for all threads
            try:
                # As bytes, for OpenCV opens no file whose name is no text.
                weights, none = np.fromfile(self._path, np.uint8), np.empty(0, np.uint8)
                return cv2.FaceDetectorYN.create("onnx", weights, none, (320, 320), LEAST_SCORE)
            except (cv2.error, OSError):
                is_none = f"{self._path} is no YuNet model that OpenCV {cv2.__version__} can load"
                advice = f"expected an ONNX file; point CFNSR_YUNET to {YUNET_FILE}"
                raise InputError(f"{is_none}: {advice}") from None
            finally:
                cv2.utils.logging.setLogLevel(quiet)

    def detect(self, frame: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Detect faces (n, 5) in an RGB frame (H, W, 3): x, y, width, height in its pixels, and score.

        Several threads may ask at once.
        """
        import cv2

        height, width = frame.shape[:2]
        scale = min(1.0, LONGEST_SIDE / max(height, width))
        size = max(1, round(width * scale)), max(1, round(height * scale))
        small = frame if scale == 1 else cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
        small = cv2.cvtColor(small, cv2.COLOR_RGB2BGR)
        if not hasattr(self._networks, "yunet"):  # in another thread than this was made in
            self._networks.yunet = self._load()
        self._networks.yunet.setInputSize(size)
        _, faces = self._networks.yunet.detect(small)
        if faces is None:
            return np.empty((0, 5), np.float32)
        shrunk = np.array([size[0] / width, size[1] / height] * 2, np.float32)
        return np.column_stack([faces[:, :4] / shrunk, faces[:, -1]]).astype(np.float32)


def yunet_weights() -> Path:
    """Find the detector's weights by `yunet_here`, else fetch them once and check them.

    Raises:
        InputError: the named file is missing, or there is none and it cannot be fetched.
    """
    if (here := yunet_here()) is not None:
        return here
    return fetch((YUNET_URL, *YUNET_MIRRORS), YUNET_SHA256, "the face detector's weights", WITHOUT_NETWORK)


def yunet_here() -> Path | None:
    """Find the detector's weights here: the file of `CFNSR_YUNET`, else the one fetched before, else None.

    Raises:
        InputError: the named file is missing.
    """
    if named := os.environ.get("CFNSR_YUNET"):
        if not Path(named).is_file():
            raise InputError(f"CFNSR_YUNET names {named}, which is no file: expected YuNet's ONNX file")
        return Path(named)
    return find_fetched(YUNET_URL, YUNET_SHA256)


class Follower:
    """Links each frame's detections to people, frame by frame; numbers them from 0 as they appear.

    A frame's faces go to the nearest known people, nearest first: no further than a face's side for each
    frame passed since, and between half and twice as large.

    Args:
        forget: frames after which a person who is gone is forgotten: who comes back is a new one. None
            keeps all.
    """

    def __init__(self, forget: int | None = None) -> None:
        self.forget = forget
        self._frame = -1
        self._count = 0
        self._last: dict[int, tuple[int, NDArray[np.floating]]] = {}  # person -> frame and detection

    def add(self, faces: NDArray[np.floating]) -> dict[int, NDArray[np.floating]]:
        """Link the next frame's faces (n, 5) to people."""
        self._frame += 1
        if self.forget is not None:
            oldest = self._frame - self.forget
            self._last = {person: last for person, last in self._last.items() if last[0] >= oldest}
        people = list(self._last)
        seen = np.array([self._last[person][0] for person in people], float)
        before = np.array([self._last[person][1] for person in people]).reshape(-1, 5)
        distance = _distances(before, faces) / (self._frame - seen)[:, None]
        near = distance <= 1
        free, found = set(range(len(faces))), {}
        for index, face in np.argwhere(near)[np.argsort(distance[near], kind="stable")]:
            if face in free and people[index] not in found:
                found[people[index]] = faces[face]
                free.discard(face)
        for face in sorted(free):
            found[self._count] = faces[face]
            self._count += 1
        self._last |= {person: (self._frame, face) for person, face in found.items()}
        return found


def people_of(
    frames: Sequence[Mapping[int, NDArray[np.floating]]], times: NDArray[np.floating]
) -> list[tuple[int, Track]]:
    """List people and their tracks through frames that `Follower` has linked; the largest comes first.

    Args:
        frames: nothing in those that were not searched.
        times: (T,) seconds of the frames.
    """
    tracks: list[tuple[float, int, Track]] = []
    for person in {person for found in frames for person in found}:
        found = np.array([person in each for each in frames])
        table = np.zeros((len(frames), 5))
        seen = [each[person] for each in frames if person in each]
        table[found] = seen
        presence = sum(float(np.sqrt(face[2] * face[3])) for face in seen)
        one = Track(fill(table[:, :4], found, times), found, table[:, 4].astype(np.float32))
        tracks.append((-presence, person, one))
    return [(person, one) for _, person, one in sorted(tracks, key=lambda each: each[:2])]


def _distances(before: NDArray[np.floating], faces: NDArray[np.floating]) -> NDArray[np.float64]:
    """Distances (people, faces) in sides of a face; infinite where the sizes differ twofold."""
    old, new = before.astype(np.float64)[:, None], faces.astype(np.float64)[None]
    gaps = (old[..., :2] + old[..., 2:4] / 2) - (new[..., :2] + new[..., 2:4] / 2)
    old_side, new_side = np.sqrt(old[..., 2] * old[..., 3]), np.sqrt(new[..., 2] * new[..., 3])
    alike = (old_side < 2 * new_side) & (new_side < 2 * old_side)
    return np.where(alike, np.linalg.norm(gaps, axis=-1) / np.maximum(old_side, new_side), np.inf)


def check_found(found: NDArray[np.bool_], least_found: float = LEAST_FOUND, of: str = "frames") -> None:
    """Refuse a take in which too few of the frames, or rows of a track, show the person.

    Raises:
        MediaError: none does, or fewer than `least_found` of them ("no face").
    """
    if found.sum() < least_found * len(found) or not found.any():
        least = f"at least {least_found:.0%} of them" if least_found else "one of them"
        shown = f"a face in only {found.sum()} of {len(found)} {of}"
        raise MediaError("no face", f"{shown}: expected one person in {least}; check light and framing")


def fill(
    values: NDArray[np.floating], found: NDArray[np.bool_], times: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Interpolate rows (T, ...) not found from their neighbours in time, or hold them at the ends.

    >>> values, found = np.array([[0.0], [9.0], [4.0], [9.0]]), np.array([True, False, True, False])
    >>> fill(values, found, np.array([0, 3, 4, 5])).ravel()
    array([0., 3., 4., 4.])
    """
    flat = values.reshape(len(values), -1).astype(np.float64)[found]
    columns = [np.interp(times, times[found], column) for column in flat.T]
    return np.stack(columns, axis=1).reshape(values.shape)


def squares_from_boxes(boxes: NDArray[np.floating], margin: float = MARGIN) -> NDArray[np.float64]:
    """Squares (T, 3) of centre x, centre y and side around the detector's boxes (T, 4)."""
    x, y, width, height = boxes.astype(np.float64).T
    # the height follows from the width where the head is bent forward
    face = np.maximum(height, width / BOX_WIDTH)
    return np.stack([x + width / 2, y + height / 2, face * (1 + margin)], axis=1)


def squares_from_landmarks(landmarks: NDArray[np.floating], margin: float = MARGIN) -> NDArray[np.float64]:
    """Squares (T, 3) around 68 points (T, 68, 2), as `squares_from_boxes`: reaching up to the hairline."""
    low, high = landmarks.min(axis=1).astype(np.float64), landmarks.max(axis=1).astype(np.float64)
    width, height = (high - low).T
    face = np.maximum(height * FACE_PER_POINTS, width / POINTS_WIDTH)
    x, y = ((low + high) / 2).T
    return np.stack([x, y - face / FACE_PER_POINTS * RISE_PER_POINTS, face * (1 + margin)], axis=1)


def smooth(squares: NDArray[np.floating], times: NDArray[np.floating]) -> NDArray[np.float64]:
    """Smooth squares (T, 3) at `times` (T,) seconds, so that they follow the head without its jitter.

    A running median removes outliers; then each value is read from a straight line fitted to its
    neighbours with Gaussian weights (Cleveland, JASA 1979), which bends neither the ends nor a steady
    movement. The side is smoothed over longer than the centre.

    >>> steady = np.column_stack([np.arange(5.0), np.arange(5.0), np.full(5, 9.0)])
    >>> np.allclose(smooth(steady, np.arange(5) / 10), steady)
    True
    """
    steady = squares.astype(np.float64)
    if len(steady) < 3:
        return steady
    step = float(np.median(np.diff(times)))
    reach = round(MEDIAN_SECONDS / 2 / step) if step > 0 else 0
    reach = min(reach, (len(steady) - 1) // 2)
    padded = np.pad(steady, ((reach, reach), (0, 0)), mode="reflect", reflect_type="odd")
    steady = np.median(sliding_window_view(padded, 2 * reach + 1, axis=0), axis=-1)
    centres = _local_lines(steady[:, :2], times, CENTRE_SECONDS)
    sides = _local_lines(steady[:, 2:], times, SIDE_SECONDS)
    return np.hstack([centres, np.clip(sides, steady[:, 2:].min(), steady[:, 2:].max())])


def _local_lines(
    values: NDArray[np.float64], times: NDArray[np.floating], deviation: float
) -> NDArray[np.float64]:
    """Read each value (T, C) from the line that fits its neighbours best."""
    lag = np.subtract.outer(times, times).astype(np.float64).T  # [i, j]: from i to j
    weight = np.exp(-0.5 * (lag / deviation) ** 2)
    weight /= weight.sum(axis=1, keepdims=True)
    mean_lag = (weight * lag).sum(axis=1)
    variance = (weight * lag**2).sum(axis=1) - mean_lag**2
    mean = weight @ values
    slope = ((weight * lag) @ values - mean_lag[:, None] * mean) / np.maximum(variance, 1e-12)[:, None]
    return np.asarray(mean - slope * mean_lag[:, None])


def crop(frames: Frames, squares: NDArray[np.floating], size: int = SIZE) -> NDArray[np.uint8]:
    """Cut each frame (T, H, W, 3) by its own square (T, 3) into (T, size, size, 3).

    Where the square is larger than the crop, each of its pixels is the mean of a grid of points, read
    between the frame's pixels, so that nothing aliases. Beyond the border the outermost pixels are repeated.
    Pixel i covers [i, i + 1).
    """
    import cv2

    crops = np.empty((len(frames), size, size, 3), np.uint8)
    for frame, (x, y, side), out in zip(frames, squares, crops, strict=True):
        samples = 1 if side <= size else max(2, math.ceil(side / size / APART))
        step = side / (size * samples)
        corner = np.array([x, y]) - side / 2 + step / 2 - 0.5
        matrix = np.array([[step, 0, corner[0]], [0, step, corner[1]]])
        whole, how = np.ascontiguousarray(frame), cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        larger = (size * samples, size * samples)
        warped = cv2.warpAffine(whole, matrix, larger, flags=how, borderMode=cv2.BORDER_REPLICATE)
        out[:] = warped if samples == 1 else cv2.resize(warped, (size, size), interpolation=cv2.INTER_AREA)
    return crops


def cut_faces(
    frames: Frames,
    times: NDArray[np.floating],
    points: OpenFaceTrack,
    *,
    margin: float = MARGIN,
    size: int = SIZE,
    least_found: float = LEAST_FOUND,
) -> Faces:
    """Cut the face out of frames (T, H, W, 3) taken at `times` (T,) seconds, by OpenFace's landmarks.

    Args:
        points: OpenFace's rows of exactly these frames (`OpenFaceTrack.at`) with landmarks.

    Raises:
        MediaError: no face, or one in too few frames ("no face").
    """
    if points.landmarks is None or len(points.landmarks) != len(frames):
        raise ValueError("expected OpenFace landmarks for each frame")
    check_found(points.success, least_found)
    squares = fill(squares_from_landmarks(points.landmarks, margin), points.success, times)
    squares = smooth(squares, times)
    return Faces(crop(frames, squares, size), squares, points.success, points.confidence)


def cut(
    frames: Frames, times: NDArray[np.floating], person: Track, *, margin: float = MARGIN, size: int = SIZE
) -> Faces:
    """Cut a followed person's face out of frames (T, H, W, 3) taken at `times` (T,) seconds."""
    squares = smooth(squares_from_boxes(person.boxes, margin), times)
    return Faces(crop(frames, squares, size), squares, person.found, person.score)
