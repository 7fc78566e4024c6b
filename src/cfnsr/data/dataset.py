"""Prepared clips as tensors for training and evaluation."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.nn import functional
from torch.utils.data import Dataset

from cfnsr.data.store import Header, Store
from cfnsr.media.decode import spread

MEMORY = 4 * 2**30  # bytes of clips that are held in memory rather than read again every epoch


class Batch(NamedTuple):
    """Clips side by side; `place` is each one's index in its `Clips`. A modality not asked for is empty."""

    video: UInt8[Tensor, "B 3 T H W"]
    audio: Float[Tensor, "B 13 S"]
    label: Int[Tensor, " B"]
    place: Int[Tensor, " B"]


def pictures(video: np.ndarray, frames: int, size: int) -> UInt8[Tensor, "3 T H W"]:
    """A prepared clip's pictures at the number of frames and the size a model asks for.

    Args:
        video: uint8 (frames, height, width, 3).
        frames: evenly spaced among those there are.
        size: side in pixels; shrunk by averaging areas.
    """
    chosen = torch.from_numpy(video[spread(len(video), frames)]).permute(3, 0, 1, 2)
    if chosen.shape[-1] != size:
        chosen = functional.interpolate(chosen.float(), (size, size), mode="area").round().to(torch.uint8)
    return chosen


class Clips(Dataset[Batch]):
    """The clips of some takes, at the frames and size of a model; small sets are held in memory.

    Args:
        store: where the clips are.
        headers: which clips.
        modalities: "video", "audio" or both: the tensors that are read.
        frames: pictures a clip.
        size: side of a picture in pixels.
    """

    def __init__(
        self, store: Store, headers: Sequence[Header], modalities: Sequence[str], frames: int, size: int
    ) -> None:
        self.store = store
        self.headers = list(headers)
        self.modalities = tuple(modalities)
        self.frames = frames
        self.size = size
        self.labels = [store.labels.index(header.emotion) for header in self.headers]
        bytes_each = 3 * frames * size * size if "video" in modalities else 0
        self._held: list[Batch] | None = None
        if bytes_each * len(self.headers) <= MEMORY:
            self._held = [self._read(index) for index in range(len(self.headers))]

    @property
    def in_memory(self) -> bool:
        """Whether no worker processes are needed to read ahead."""
        return self._held is not None

    def __len__(self) -> int:
        return len(self.headers)

    def __getitem__(self, index: int) -> Batch:
        return self._held[index] if self._held is not None else self._read(index)

    def _read(self, index: int) -> Batch:
        loaded = self.store.load(self.headers[index].name, self.modalities)
        video = torch.empty(0, dtype=torch.uint8)
        if "video" in loaded:
            video = pictures(loaded["video"], self.frames, self.size)
        audio = torch.from_numpy(loaded["audio"]) if "audio" in loaded else torch.empty(0)
        return Batch(video, audio, torch.tensor(self.labels[index]), torch.tensor(index))
