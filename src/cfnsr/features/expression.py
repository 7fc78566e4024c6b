"""Expression of a face over time: features and scores of a pretrained network for face crops."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, UInt8

from cfnsr.features.base import Arrays, Feature, Look, Shape, pool_steps
from cfnsr.features.expression_net import CHANNELS, EMOTIONS, find_net
from cfnsr.media.face import FACE_PER_POINTS, RISE_PER_POINTS, Faces

if TYPE_CHECKING:
    from cfnsr.features.preparation import Preparation

STEPS = 10  # about as many as a usual clip has pictures that are searched
# face-api.js cuts out the box of the 68 points, from the brows to the chin, and a tenth more on each side. As
# parts of a face's height, hairline to chin: its side, and how far its centre lies below the face's.
SIDE = 1.2 / FACE_PER_POINTS
DROP = RISE_PER_POINTS / FACE_PER_POINTS


class Expression(Feature):
    """Scores and features of an expression network, of the face crops in which the face was found.

    A clip keeps `expression` (T, F) float32, a row a crop: log-probabilities of `EMOTIONS`, then the
    features, 256 of the small network; a model reads (F, steps).
    """

    name, role, file = "expression", "video", "video"
    weights = "expression_sha256"
    time_axis, logarithmic = -1, True
    columns = (*EMOTIONS, *(f"feature {number}" for number in range(CHANNELS[-1])))
    nothing = "an average expression"
    citation = (
        "Mühler V, Mandic V. face-api.js, its face expression model, "
        "https://github.com/vladmandic/face-api (MIT licence)."
    )

    def extract(self, source: Faces, preparation: Preparation, threads: int = 0) -> dict[str, np.ndarray]:
        net = find_net(preparation.expression_sha256, threads)
        return {self.name: net.values(tight(source.crops[source.found], preparation.margin))}

    def to_model(self, arrays: Arrays, look: Look) -> Float[np.ndarray, "F steps"]:
        return pool_steps(arrays[self.name].T, STEPS)

    def sizes(self, clips: Iterable[Arrays]) -> dict[str, int]:
        return {"expression_features": next(iter(clips))[self.name].shape[1]}

    def absent(self, preparation: Preparation, settings: Mapping[str, int]) -> dict[str, np.ndarray]:
        return {self.name: np.full((1, settings["expression_features"]), np.nan, np.float32)}

    def graph_shape(self, look: Look, preparation: Preparation, settings: Mapping[str, int]) -> Shape:
        return settings["expression_features"], STEPS

    def noise(
        self, rng: np.random.Generator, shape: Shape, preparation: Preparation
    ) -> dict[str, np.ndarray]:
        return {self.name: rng.standard_normal(shape[::-1]).astype(np.float32)}


def tight(crops: UInt8[np.ndarray, "T S S 3"], margin: float) -> UInt8[np.ndarray, "T s s 3"]:
    """Cut face crops down to what an expression network expects, as far as they reach.

    Of the six real clips the small network gave the acted emotion a probability of 0.20 (geometric mean) this
    way, of the whole crops 0.02, and of the detector's boxes 0.05.

    >>> tight(np.zeros((1, 224, 224, 3), np.uint8), 0.2).shape
    (1, 163, 163, 3)
    """
    size = crops.shape[1]
    face = size / (1 + margin)
    side = min(size, round(SIDE * face))
    left = (size - side) // 2
    top = min(size - side, round(size / 2 + (DROP - SIDE / 2) * face))
    return crops[:, top : top + side, left : left + side]
