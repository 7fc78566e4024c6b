"""OpenFace's CSV tables -> arrays: landmarks, action units, pose and gaze of one face over time."""

from __future__ import annotations

import csv
import warnings
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cfnsr.media.errors import MediaError

_INTENSITIES = (1, 2, 4, 5, 6, 7, 9, 10, 12, 14, 15, 17, 20, 23, 25, 26, 45)
_PRESENCES = (*_INTENSITIES[:-1], 28, 45)

ACTION_UNITS = tuple(
    [f"AU{unit:02d}_r" for unit in _INTENSITIES] + [f"AU{unit:02d}_c" for unit in _PRESENCES]
)
"""The 35 columns in OpenFace 2's order: 17 intensities from 0 to 5, then 18 presences, 0 or 1."""

POSE = ("pose_Tx", "pose_Ty", "pose_Tz", "pose_Rx", "pose_Ry", "pose_Rz")
GAZE = (
    *(f"gaze_{eye}_{axis}" for eye in (0, 1) for axis in "xyz"),
    "gaze_angle_x",
    "gaze_angle_y",
)
POINTS = 68  # of the iBUG layout: jaw 0-16, brows 17-26, nose 27-35, eyes 36-47, mouth 48-67
LANDMARKS = (*(f"x_{point}" for point in range(POINTS)), *(f"y_{point}" for point in range(POINTS)))


@dataclass(frozen=True)
class OpenFaceTrack:
    """What OpenFace 2 (Baltrusaitis et al., FG 2018) measured of one face, a row for each picture.

    Args:
        frame_numbers: (T,) position of each row's picture in the video, from 0, ascending.
        timestamps: (T,) seconds.
        confidence: (T,) of the landmarks, from 0 to 1.
        success: (T,) whether the face was found; the other rows hold no measurement.
        landmarks: (T, 68, 2) pixels x, y in the iBUG layout, or None where the table has none.
        action_units: (T, 35) in the order of `ACTION_UNITS`.
        pose: (T, 6) head position in mm and rotation in radians, in the order of `POSE`, or None.
        gaze: (T, 8) two directions and their mean angles, in the order of `GAZE`, or None.
    """

    frame_numbers: NDArray[np.int64]
    timestamps: NDArray[np.float64]
    confidence: NDArray[np.float32]
    success: NDArray[np.bool_]
    landmarks: NDArray[np.float32] | None
    action_units: NDArray[np.float32]
    pose: NDArray[np.float32] | None
    gaze: NDArray[np.float32] | None

    def at(self, frame_numbers: NDArray[np.integer]) -> OpenFaceTrack:
        """The rows nearest to the given pictures of the video, e.g. those `decode` kept."""
        halfway = (self.frame_numbers[1:] + self.frame_numbers[:-1]) / 2
        return self._rows(np.searchsorted(halfway, frame_numbers))

    def _rows(self, rows: NDArray[np.intp]) -> OpenFaceTrack:
        columns = ((field.name, getattr(self, field.name)) for field in fields(self))
        kept: dict[str, Any] = {name: None if column is None else column[rows] for name, column in columns}
        return OpenFaceTrack(**kept)


def read_openface(path: Path | str) -> OpenFaceTrack:
    """Read an OpenFace CSV by the names of its columns, in any order, with or without spaces around them.

    Of several faces (`face_id`) the one seen longest, weighted by confidence, is kept.

    Raises:
        MediaError: the file is missing, empty, not a table of numbers, or lacks a needed column.
    """
    path = Path(path)
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            header = [name.strip() for name in next(csv.reader(file), [])]
    except FileNotFoundError:
        raise MediaError(
            "missing", f"{path} does not exist: expected an OpenFace CSV; check the name"
        ) from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise MediaError(
            "broken", f"{path} cannot be read ({error}): expected an OpenFace CSV; check the path"
        ) from None
    needed = ("frame", "timestamp", "confidence", "success", *ACTION_UNITS)
    missing = [name for name in needed if name not in header]
    if missing:
        shown = ", ".join(missing[:6]) + (f" and {len(missing) - 6} more" if len(missing) > 6 else "")
        raise MediaError(
            "broken", f"{path} lacks the columns {shown}: expected OpenFace 2's table; run it with -aus"
        )
    optional = [group for group in (("face_id",), LANDMARKS, POSE, GAZE) if set(group) <= set(header)]
    names = [*needed, *(name for group in optional for name in group)]
    column = {name: place for place, name in enumerate(names)}
    try:
        with warnings.catch_warnings(action="ignore"):  # about a table without rows, told below
            table = np.loadtxt(
                path,
                delimiter=",",
                skiprows=1,
                usecols=[header.index(name) for name in names],
                ndmin=2,
                encoding="utf-8-sig",
            )
    except ValueError as error:
        raise MediaError(
            "broken", f"{path} is not a table of numbers: {str(error).splitlines()[0]}; write it again"
        ) from None
    if not len(table):
        raise MediaError(
            "broken", f"{path} has a header but no rows: expected one for each picture; write it again"
        )

    def take(*group: str) -> NDArray[np.float64]:
        return table[:, [column[name] for name in group]]

    if "face_id" in column:
        table = table[take("face_id")[:, 0] == _main_face(take("face_id", "confidence", "success"))]
    table = table[np.argsort(take("frame")[:, 0], kind="stable")]
    success = take("success")[:, 0] > 0.5
    if not np.isfinite(table[success]).all():
        raise MediaError(
            "broken", f"{path} holds values that are not finite numbers: write it again with OpenFace"
        )
    points = take(*LANDMARKS).astype(np.float32) if LANDMARKS in optional else None
    return OpenFaceTrack(
        frame_numbers=take("frame")[:, 0].astype(np.int64) - 1,  # OpenFace counts from 1
        timestamps=take("timestamp")[:, 0],
        confidence=take("confidence")[:, 0].astype(np.float32),
        success=success,
        landmarks=None if points is None else np.stack([points[:, :POINTS], points[:, POINTS:]], axis=-1),
        action_units=take(*ACTION_UNITS).astype(np.float32),
        pose=take(*POSE).astype(np.float32) if POSE in optional else None,
        gaze=take(*GAZE).astype(np.float32) if GAZE in optional else None,
    )


def _main_face(rows: NDArray[np.float64]) -> float:
    """The identity seen longest among rows of (identity, confidence, success)."""
    faces, row_face = np.unique(rows[:, 0], return_inverse=True)
    seen = np.bincount(row_face, weights=rows[:, 1] * (rows[:, 2] > 0.5))
    return float(faces[seen.argmax()])
