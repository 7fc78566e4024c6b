"""OpenFace's CSV tables -> arrays: landmarks, action units, pose and gaze of one face over time.

A table is a track, one row a picture (`read_openface`), or the clip means of many takes (`read_means`).
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cfnsr.errors import InputError, listed
from cfnsr.files import Table, escaped, open_table
from cfnsr.media.errors import MediaError

INTENSITIES = (1, 2, 4, 5, 6, 7, 9, 10, 12, 14, 15, 17, 20, 23, 25, 26, 45)
PRESENCES = (*INTENSITIES[:-1], 28, 45)

ACTION_UNITS = (*(f"AU{unit:02d}_r" for unit in INTENSITIES), *(f"AU{unit:02d}_c" for unit in PRESENCES))
"""The 35 columns in OpenFace 2's order: 17 intensities from 0 to 5, then 18 presences, 0 or 1."""

POSE = ("pose_Tx", "pose_Ty", "pose_Tz", "pose_Rx", "pose_Ry", "pose_Rz")
GAZE = (*(f"gaze_{eye}_{axis}" for eye in (0, 1) for axis in "xyz"), "gaze_angle_x", "gaze_angle_y")
POINTS = 68  # of the iBUG layout: jaw 0-16, brows 17-26, nose 27-35, eyes 36-47, mouth 48-67
LANDMARKS = (*(f"x_{point}" for point in range(POINTS)), *(f"y_{point}" for point in range(POINTS)))

FEATURES = {"action_units": 35, "pose": 6, "gaze": 8, "shape": 136}
"""The groups of `OpenFaceTrack.features` in their order, and how many columns each has."""

# OpenFace's millimetres -> metres, for values of the size that the radians beside them have.
_POSE_SCALE = np.array([1e-3, 1e-3, 1e-3, 1, 1, 1], np.float32)
_LARGEST = float(np.finfo(np.float32).max)
_HIGHEST = {"_r": 5.0, "_c": 1.0}  # of an action unit's intensity and presence; the lowest of both is 0
_ROUNDING = 0.01  # beyond that
# What C libraries write for no number, besides nan: -nan(ind), nan(snan), -1.#IND, 1.#QNAN, 1.#INF.
_NO_NUMBER = re.compile(r"[+-]?(nan(\(\w*\))?|1\.#(ind|qnan|snan|inf)0*)", re.IGNORECASE)
_SUCCESS = {"true": "1", "false": "0", "": "0"}  # as spreadsheets and data frames write it


@dataclass(frozen=True)
class OpenFaceTrack:
    """Measurements of one face by OpenFace 2 (Baltrusaitis et al., FG 2018), a row for each picture.

    Args:
        frame_numbers: (T,) position of each row's picture in the video, from 0, ascending.
        timestamps: (T,) seconds.
        confidence: (T,) of the landmarks, from 0 to 1.
        success: (T,) whether the face was found; the other rows hold no measurement.
        landmarks: (T, 68, 2) pixels x, y in the iBUG layout, or None where the table has none.
        action_units: (T, 35) in the order of `ACTION_UNITS`; (T, 0) where only the points were read.
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
        """Return the rows nearest to the given pictures of the video, e.g. those `decode` kept."""
        halfway = (self.frame_numbers[1:] + self.frame_numbers[:-1]) / 2
        return self.rows(np.searchsorted(halfway, frame_numbers))

    def seen(self) -> OpenFaceTrack:
        """Return the rows in which the face was found; the others hold no measurement.

        Raises:
            MediaError: there is no such row ("no face").
        """
        if not self.success.any():
            none = f"OpenFace found no face in any of {len(self.success)} rows"
            raise MediaError("no face", f"{none}: expected one person; leave the take out")
        return self.rows(np.flatnonzero(self.success))

    def features(self) -> NDArray[np.float32]:
        """Features of each row for an encoder, (T, 35), (T, 41), (T, 49) or (T, 185).

        The groups of `FEATURES`, up to the first that the table lacks, so that every narrower table of
        features is the beginning of a wider one: action units as they are, intensities from 0 to 5 and
        presences from 0 to 1; the head's position in metres and its rotation in radians; gaze, unit vectors
        and radians; the shape (see `face_shape`). Take `seen` first: rows without a face are no measurement.
        """
        pose = None if self.pose is None else self.pose * _POSE_SCALE
        shape = None if self.landmarks is None else face_shape(self.landmarks)
        there = [self.action_units]
        for group in (pose, self.gaze, shape):
            if group is None:
                break
            there.append(group)
        return np.hstack(there)

    def rows(self, rows: NDArray[np.intp]) -> OpenFaceTrack:
        """Select rows by their places."""
        columns = vars(self).items()
        kept: dict[str, Any] = {name: None if column is None else column[rows] for name, column in columns}
        return OpenFaceTrack(**kept)


def face_shape(landmarks: NDArray[np.floating]) -> NDArray[np.float32]:
    """Shape (T, 136) of the face by points (T, 68, 2), in the order of `LANDMARKS`.

    Each row's points are centred and divided by their size, the root of the mean squared distance from the
    centre (Dryden & Mardia, Statistical Shape Analysis, section 2.2): where the face is in the picture and
    how near the camera is left out, a tilt of the head is not.

    >>> points = np.random.default_rng(0).uniform(0, 640, (2, 68, 2))
    >>> np.allclose(face_shape(points), face_shape(3 * points + 100), atol=1e-5)
    True
    """
    points = landmarks.astype(np.float64)
    centred = points - points.mean(axis=1, keepdims=True)
    size = np.sqrt(np.square(centred).sum(axis=2).mean(axis=1))
    # Points that all coincide have no form: they stay at the centre.
    scaled = centred / np.where(size > 0, size, 1)[:, None, None]
    return np.asarray(scaled.swapaxes(1, 2).reshape(len(scaled), -1), np.float32)


def read_openface(path: Path | str, *, points_only: bool = False) -> OpenFaceTrack:
    """Read an OpenFace CSV by the names of its columns, in any order, with or without spaces around them.

    Of several faces (`face_id`) the one seen longest, weighted by confidence, is kept. Of a row without a
    face nothing else is read; its place among the other rows then gives its picture. Cells may be separated
    by commas, semicolons or tabs, and numbers written with a decimal comma, as spreadsheets save them.

    Args:
        points_only: read no more than where the face is: `action_units` is then (T, 0), pose and gaze None.

    Raises:
        MediaError: the file is missing, empty, not a table of numbers, lacks a needed column or has one
            twice, or has an action unit beyond its range.
    """
    path = Path(path)
    needed: tuple[str, ...] = ("frame", "timestamp", "confidence", "success")
    groups: list[tuple[str, ...]] = [("face_id",), LANDMARKS]
    if not points_only:
        needed, groups = (*needed, *ACTION_UNITS), [*groups, POSE, GAZE]
    with _opened(path) as sheet:
        names = _names(path, sheet, needed, groups)
    table = _numbers(path, names, "frame")
    if not len(table):
        message = f"{path} has a header but no rows: expected one for each picture; write it again"
        raise MediaError("broken", message)
    place, found = names.index("frame"), names.index("success")
    if "face_id" in names:
        whose = table[:, names.index("face_id")]
        people, row_person = np.unique(whose, return_inverse=True)
        seen = np.where(table[:, found] > 0.5, table[:, names.index("confidence")], 0)
        main = people[np.bincount(row_person, weights=seen).argmax()]
        table = table[(whose == main) | np.isnan(whose)]
    lost = ~(table[:, found] > 0.5)
    table[lost, place] = _continued(table[:, place], np.arange(float(len(table))), 1.0)[lost]
    table = table[np.argsort(table[:, place], kind="stable")]
    columns = dict(zip(names, table.T, strict=True))
    success = columns["success"] > 0.5
    _check(path, names, table[success], "frame", [f"{frame:g}" for frame in columns["frame"][success]])
    return OpenFaceTrack(
        frame_numbers=columns["frame"].astype(np.int64) - 1,  # OpenFace counts from 1
        timestamps=_times(columns["timestamp"], columns["frame"]),
        confidence=np.where(success, columns["confidence"], 0).astype(np.float32),
        success=success,
        **_measured(columns),
    )


def _times(timestamps: NDArray[np.float64], frames: NDArray[np.float64]) -> NDArray[np.float64]:
    """Times of all rows, of which those without a face may have none."""
    known = np.flatnonzero(np.isfinite(timestamps))
    if not len(known):
        return np.zeros(len(timestamps))
    first, last = known[[0, -1]]
    step = (timestamps[last] - timestamps[first]) / max(1.0, frames[last] - frames[first])
    return _continued(timestamps, frames, step)


def _continued(values: NDArray[np.float64], along: NDArray[np.float64], step: float) -> NDArray[np.float64]:
    """Interpolate missing values (T,) from their neighbours, or continue them by `step` at the ends.

    >>> _continued(np.array([np.nan, 4.0, np.nan, 8.0, np.nan]), np.arange(5.0), 1.0)
    array([3., 4., 6., 8., 9.])
    """
    known = np.isfinite(values)
    steady = step * along
    rest = np.interp(along, along[known], (values - steady)[known]) if known.any() else np.ones(len(values))
    return np.where(known, values, steady + rest)


def is_means(path: Path | str) -> bool:
    """Recognise a table of clip means (see `read_means`) by its header: a `name`, and no `frame`."""
    try:
        with _opened(Path(path)) as sheet:
            header = sheet.header
    except MediaError:  # whoever reads it will say what is wrong
        return False
    return "name" in header and "frame" not in header


def read_means(path: Path | str) -> dict[str, OpenFaceTrack]:
    """Read a table of clip means, one row a take: name of the take -> its means as a track of one row.

    The columns are OpenFace's, found by name as in `read_openface`, with the take's `name` in place of frame,
    time, confidence and success: a row is of a face that was found, at second 0.

    Raises:
        MediaError: the file is missing, empty, not a table of numbers, lacks a needed column or has one
            twice, or has an action unit beyond its range or different values of one take.
    """
    path = Path(path)
    with _opened(path) as sheet:
        names = _names(path, sheet, ("name", *ACTION_UNITS), (LANDMARKS, POSE, GAZE))
        place = sheet.header.index("name")
        takes = np.array([escaped(cells[place]) for _, cells in sheet.rows()], np.str_)
    if not len(takes):
        raise MediaError("broken", f"{path} has a header but no rows: expected one for each take")
    if (takes == "").any():
        message = f"{path} has a row without a name: expected the take's; mend or remove the row of ''"
        raise MediaError("broken", message)
    table = _numbers(path, names[1:], "name")
    _check(path, names[1:], table, "name", takes.tolist())
    _, first, row_take = np.unique(takes, return_index=True, return_inverse=True)
    twice = (table != table[first[row_take]]).any(axis=1)
    if twice.any():
        row = f"the row of {str(takes[twice.argmax()])!r}"
        message = f"{path} has two different rows of one take: expected one; mend or remove {row}"
        raise MediaError("broken", message)
    columns = dict(zip(names[1:], table.T, strict=True))
    every = OpenFaceTrack(
        frame_numbers=np.zeros(len(takes), np.int64),
        timestamps=np.zeros(len(takes)),
        confidence=np.ones(len(takes), np.float32),
        success=np.ones(len(takes), np.bool_),
        **_measured(columns),
    )
    return {str(takes[row]): every.rows(np.array([row])) for row in first}


@contextmanager
def _opened(path: Path) -> Iterator[Table]:
    try:
        with open_table(path, "expected an OpenFace CSV") as table:
            yield table
    except MediaError:
        raise
    except InputError as error:
        raise MediaError("broken" if path.exists() else "missing", str(error)) from None


def _names(path: Path, sheet: Table, needed: Sequence[str], optional: Sequence[tuple[str, ...]]) -> list[str]:
    """Choose the columns to read: those needed, and the optional groups that are there as a whole."""
    header = sheet.header
    missing = [name for name in needed if name not in header]
    if missing:
        advice = "run it with -aus"
        if len(header) < 2:
            advice = "separate the cells by commas, semicolons or tabs"
        elif not set(missing) <= set(ACTION_UNITS):
            advice = "see whether it is one"
        lacks = f"{path} lacks the columns {listed(missing, 6)}"
        raise MediaError("broken", f"{lacks}: expected OpenFace 2's table; {advice}")
    names = [*needed, *(name for group in optional if set(group) <= set(header) for name in group)]
    twice = [name for name in names if header.count(name) > 1]
    if twice:
        message = f"{path} has {header.count(twice[0])} columns {twice[0]}: expected one; remove the others"
        raise MediaError("broken", message)
    return names


def _numbers(path: Path, names: list[str], key: str) -> NDArray[np.float64]:
    """Read the cells (rows, columns) of columns of numbers; NaN for what is none in a row without a face.

    Raises:
        MediaError: a cell that counts is no number; names it by what `key` calls its row.
    """
    with _opened(path) as sheet, warnings.catch_warnings(action="ignore"):  # of no rows: the caller's
        places = [sheet.header.index(name) for name in names]
        form: dict[str, Any] = {"comments": None, "delimiter": sheet.separator, "quotechar": '"'}
        with suppress(ValueError):  # not all are numbers as Python writes them
            return np.loadtxt(sheet.lines, usecols=places, ndmin=2, **form)
    rows = []
    with _opened(path) as sheet:
        for _, cells in sheet.rows():  # cell by cell
            texts = [cells[place] for place in places]
            without_face = False
            if key == "frame":
                success = names.index("success")
                texts[success] = _SUCCESS.get(texts[success].lower(), texts[success])
                found = _number(texts[success])
                without_face = found is not None and not found > 0.5
            values = [_number(text) for text in texts]
            if None in values and not without_face:
                bad = values.index(None)
                row = cells[sheet.header.index(key)]
                raise _wrong(path, names[bad], repr(texts[bad]), "a number", key, row)
            rows.append([math.nan if value is None else value for value in values])
    return np.array(rows, np.float64).reshape(-1, len(names))


def _number(cell: str) -> float | None:
    """Parse a cell's number, NaN in any C library's spelling, perhaps with a decimal comma; None for text."""
    try:
        return float(cell.replace(",", "."))
    except ValueError:
        return math.nan if _NO_NUMBER.fullmatch(cell) else None


def _check(path: Path, names: list[str], table: NDArray[np.float64], key: str, rows: list[str]) -> None:
    """Refuse values that 32 bits do not hold, and action units beyond their range."""
    highest = np.array([_HIGHEST[name[-2:]] if name in ACTION_UNITS else np.inf for name in names])
    lowest = np.where(np.isinf(highest), -np.inf, 0)
    beyond = (table < lowest - _ROUNDING) | (table > highest + _ROUNDING)
    for cells, finite in ((~(np.abs(table) <= _LARGEST), False), (beyond, True)):
        if cells.any():
            row, column = np.argwhere(cells)[0]
            expected = f"0 to {highest[column]:g}" if finite else "a finite number"
            raise _wrong(path, names[column], f"{table[row, column]:g}", expected, key, rows[row])


def _wrong(path: Path, column: str, cell: str, expected: str, key: str, row: str) -> MediaError:
    """Error about one cell; `key` is the column that names rows."""
    place, mend = f"the row of frame {row}", "write it again with OpenFace"
    if key == "name":
        place, mend = f"the row of {row!r}", "mend or remove that row"
    return MediaError("broken", f"{path} has {cell} as {column} in {place}: expected {expected}; {mend}")


def _measured(columns: dict[str, NDArray[np.float64]]) -> dict[str, Any]:
    """Measurements of the face, by the fields of `OpenFaceTrack`; None for a group not there."""

    def group(names: tuple[str, ...]) -> NDArray[np.float32] | None:
        if names[0] not in columns:
            return None
        with np.errstate(over="ignore"):  # in rows without a face
            return np.column_stack([columns[name] for name in names]).astype(np.float32)

    points, units = group(LANDMARKS), group(ACTION_UNITS)
    return {
        "landmarks": None if points is None else np.stack([points[:, :POINTS], points[:, POINTS:]], axis=-1),
        "action_units": np.empty((len(columns["frame"]), 0), np.float32) if units is None else units,
        "pose": group(POSE),
        "gaze": group(GAZE),
    }
