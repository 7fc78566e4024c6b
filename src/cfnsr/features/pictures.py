"""Face crops, what a 3D ResNeXt sees."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import UInt8
from numpy.typing import NDArray

from cfnsr.features.base import Arrays, Feature, Look, Shape, parts
from cfnsr.media.decode import spread
from cfnsr.media.face import Faces

if TYPE_CHECKING:
    from cfnsr.features.preparation import Preparation

PLAIN = (124, 116, 104)  # RGB, the mean colour of ImageNet's pictures: about zero once normalised


class Pictures(Feature):
    """Crops of one face, uint8, evenly spaced over a take (section 3.2).

    A clip keeps `video` (frames, size, size, 3), RGB; a model reads (3, T, H, W).
    """

    name, role, file = "video", "video", "video"
    entry = "frames"
    dtype = "uint8"
    computed = True
    nothing = "pictures of one plain colour"

    def extract(self, source: Faces, preparation: Preparation, threads: int = 0) -> dict[str, np.ndarray]:
        return {self.name: source.crops}

    def to_model(self, arrays: Arrays, look: Look) -> UInt8[np.ndarray, "3 T H W"]:
        return self.to_graph(arrays, look).transpose(3, 0, 1, 2)

    def concerns(self, look: Look) -> tuple[int, ...]:
        return look.frames, look.size

    def absent(self, preparation: Preparation, settings: Mapping[str, int]) -> dict[str, np.ndarray]:
        shape = preparation.frames, preparation.size, preparation.size, 3
        return {self.name: np.broadcast_to(np.array(PLAIN, np.uint8), shape)}

    def to_graph(self, arrays: Arrays, look: Look) -> UInt8[np.ndarray, "T H W 3"]:
        return shrink(arrays[self.name][spread(len(arrays[self.name]), look.frames)], look.size)

    def graph_shape(self, look: Look, preparation: Preparation, settings: Mapping[str, int]) -> Shape:
        return look.frames, look.size, look.size, 3

    def noise(
        self, rng: np.random.Generator, shape: Shape, preparation: Preparation
    ) -> dict[str, np.ndarray]:
        return {self.name: rng.integers(0, 256, shape, dtype=np.uint8)}


def shrink(frames: UInt8[np.ndarray, "T H W 3"], size: int) -> UInt8[np.ndarray, "T size size 3"]:
    """Shrink pictures by averaging areas, to the last bit as PyTorch's mode "area"."""
    if frames.shape[2] == size:
        return frames
    # Sums of bytes are whole numbers, which float32 holds exactly; so nothing depends on their order.
    down, across = (_members(side, size) for side in frames.shape[1:3])
    count, height, width, colours = frames.shape
    rows = down @ frames.astype(np.float32).reshape(count, height, width * colours)
    sums = rows.reshape(count, size, width, colours).swapaxes(2, 3) @ across.T
    areas = np.outer(down.sum(axis=1), across.sum(axis=1))[:, None]
    means: NDArray[np.uint8] = np.rint(sums / areas).astype(np.uint8)
    return means.swapaxes(2, 3)


def _members(length: int, count: int) -> NDArray[Any]:
    """(count, length): 1 where a place lies in a part."""
    first, last = parts(length, count)
    place = np.arange(length)
    return ((place >= first[:, None]) & (place < last[:, None])).astype(np.float32)
