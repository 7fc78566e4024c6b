"""Prepared clips as tensors for training and evaluation."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.nn import functional
from torch.utils.data import Dataset

from cfnsr.data.store import Header, Store
from cfnsr.media.decode import spread

MEMORY = 4 * 2**30  # bytes of one kind of tensor that are held in memory rather than read again every epoch


class Batch(NamedTuple):
    """Clips side by side; `place` is each one's index in its `Clips`. A modality not asked for is empty."""

    video: UInt8[Tensor, "B 3 T H W"]
    audio: Float[Tensor, "B F S"]
    label: Int[Tensor, " B"]
    place: Int[Tensor, " B"]


def as_tensor(name: str, array: np.ndarray, frames: int, size: int) -> Tensor:
    """A prepared clip's tensor as a model takes it: pictures at its frames and size, others as they are."""
    return pictures(array, frames, size) if name == "video" else torch.from_numpy(array)


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


class Column(Dataset[Tensor]):
    """One tensor of every clip, such as its pictures; a small one is held in memory.

    Args:
        store: where the clips are.
        headers: which clips.
        name: of the tensor in the store.
        frames: pictures a clip.
        size: side of a picture in pixels.
    """

    def __init__(self, store: Store, headers: Sequence[Header], name: str, frames: int, size: int) -> None:
        self.store = store
        self.headers = headers
        self.name = name
        self.frames = frames
        self.size = size
        first = self._read(0)
        self._held: list[Tensor] | None = None
        if first.nbytes * len(headers) <= MEMORY:
            self._held = [first, *(self._read(index) for index in range(1, len(headers)))]

    @property
    def in_memory(self) -> bool:
        """Whether no worker processes are needed to read ahead."""
        return self._held is not None

    def __getitem__(self, index: int) -> Tensor:
        return self._held[index] if self._held is not None else self._read(index)

    def _read(self, index: int) -> Tensor:
        name = self.headers[index].name
        return as_tensor(self.name, self.store.load(name, [self.name])[self.name], self.frames, self.size)


class Clips(Dataset[Batch]):
    """The clips of a store as a model reads them.

    Args:
        columns: for "video" and "audio", as far as the model has them, the tensors it reads there.
        labels: class index of every clip.
        silence: what it reads of no sound, for a clip that loses its sound.
    """

    def __init__(
        self, columns: Mapping[str, Column], labels: Sequence[int], silence: Tensor | None = None
    ) -> None:
        self.columns = dict(columns)
        self.labels = list(labels)
        self.silence = silence

    @property
    def in_memory(self) -> bool:
        """Whether no worker processes are needed to read ahead."""
        return all(column.in_memory for column in self.columns.values())

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Batch:
        video, audio = (
            self.columns[modality][index] if modality in self.columns else torch.empty(0)
            for modality in ("video", "audio")
        )
        return Batch(video, audio, torch.tensor(self.labels[index]), torch.tensor(index))
