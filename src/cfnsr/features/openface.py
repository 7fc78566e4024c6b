"""Tracks of OpenFace: action units, and further groups of features where a table has them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from cfnsr.features.base import Arrays, Feature, Look, Shape, pool_steps
from cfnsr.media.openface import ACTION_UNITS, GAZE, LANDMARKS, POSE, OpenFaceTrack

if TYPE_CHECKING:
    from cfnsr.features.preparation import Preparation


class OpenFace(Feature):
    """Features of a face over time, as OpenFace 2 measured them (Baltrusaitis et al., FG 2018).

    A clip keeps `openface` (T, F) float32, the rows with a face (T is 1 for clip means),
    `openface_times` (T,) in seconds and `confidence` (T,); a model reads (F, steps). A track with fewer
    groups of features is the beginning of one with more.
    """

    name, role, file = "openface", "video", "openface"
    time_axis, logarithmic = -1, True
    columns = (*ACTION_UNITS, *POSE, *GAZE, *LANDMARKS)
    nothing = "an average track"
    citation = (
        "Baltrušaitis T, Zadeh A, Lim YC, Morency L-P (2018). OpenFace 2.0: Facial Behavior Analysis "
        "Toolkit. IEEE FG 2018."
    )

    def extract(
        self, source: OpenFaceTrack, preparation: Preparation, threads: int = 0
    ) -> dict[str, np.ndarray]:
        return {
            self.name: source.features(),
            "openface_times": source.timestamps,
            "confidence": source.confidence,
        }

    def to_model(self, arrays: Arrays, look: Look) -> Float[np.ndarray, "F steps"]:
        return pool_steps(arrays[self.name][:, : look.openface_features].T, look.openface_steps)

    def concerns(self, look: Look) -> tuple[int, ...]:
        return look.openface_steps, look.openface_features

    def sizes(self, clips: Iterable[Arrays]) -> dict[str, int]:
        shapes = [clip[self.name].shape for clip in clips]
        return {
            "openface_steps": max(steps for steps, _ in shapes),
            "openface_features": min(features for _, features in shapes),
        }

    def graph_shape(self, look: Look, preparation: Preparation, settings: Mapping[str, int]) -> Shape:
        return look.openface_features, look.openface_steps

    def noise(
        self, rng: np.random.Generator, shape: Shape, preparation: Preparation
    ) -> dict[str, np.ndarray]:
        return {self.name: rng.gamma(1.0, 0.5, shape[::-1]).astype(np.float32)}
