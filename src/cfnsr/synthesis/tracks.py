"""OpenFace-like tracks: a CSV in the manner of OpenFace 2.1 (Baltrusaitis et al. 2018)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cfnsr.files import write_text
from cfnsr.media.openface import ACTION_UNITS as UNITS
from cfnsr.media.openface import LANDMARKS, POSE
from cfnsr.synthesis.acting import ACTION_UNITS, Performance

Array = NDArray[np.float64]

LANDMARK_NOISE = 0.3  # pixels
UNIT_NOISE = 0.15  # of the intensities 0 to 5
PUPILS_MILLIMETRES = 63.0
CAMERA_MILLIMETRES = 700.0

COLUMNS = ("frame", "face_id", "timestamp", "confidence", "success", *POSE, *LANDMARKS, *UNITS)
_FORMATS = ["%d", "%d", "%.3f", "%.2f", "%d", *["%.1f"] * 3, *["%.3f"] * 3, *["%.1f"] * len(LANDMARKS)]
_FORMATS += ["%.2f" if name.endswith("_r") else "%d" for name in UNITS]


def write_tracks(
    path: Path, landmarks: Array, performance: Performance, fps: float, rng: np.random.Generator
) -> None:
    """Write one row a frame: pose, 68 landmarks in pixels and action units, each a little off the truth.

    Args:
        path: the file appears whole or not at all.
        landmarks: the drawn points in pixels (frames, 68, 2).
    """
    frames = len(landmarks)
    measured = landmarks + rng.normal(0.0, LANDMARK_NOISE, landmarks.shape)
    intensity = np.clip(performance.units + rng.normal(0.0, UNIT_NOISE, performance.units.shape), 0.0, 5.0)
    intensity[intensity < UNIT_NOISE] = 0.0
    presence = np.insert(intensity > 1.0, len(ACTION_UNITS) - 1, False, axis=1)
    place = np.column_stack([performance.shift * PUPILS_MILLIMETRES, CAMERA_MILLIMETRES / performance.scale])
    number = np.arange(frames)
    table = np.column_stack(
        [
            *(number + 1, np.zeros(frames), number / fps),
            *(0.98 - 0.02 * rng.random(frames) ** 2, np.ones(frames), place, performance.rotation),
            *(measured[..., 0], measured[..., 1], intensity, presence),
        ]
    )
    # OpenFace puts a space after each comma; readers must cope, so this writes it too
    row = ", ".join(_FORMATS) + "\n"
    text = ", ".join(COLUMNS) + "\n" + (row * frames) % tuple(table.ravel().tolist())
    write_text(path, text)
