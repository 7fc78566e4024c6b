"""Prepared clips as tensors for training and evaluation."""

from collections.abc import Callable, Container, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor
from torch.nn import functional
from torch.utils.data import Dataset

from cfnsr.corpus.take import Actor
from cfnsr.data.clip import Preparation, speech_at
from cfnsr.data.store import Header, Store
from cfnsr.errors import InputError
from cfnsr.logarithmic import compressed, expanded
from cfnsr.media.decode import spread

LEAST_DEVIATION = 1e-3  # of a value that a speaker never changes
FARTHEST = 6.0  # deviations from a speaker's mean, where the value is then expanded as a logarithm
FEWEST_TAKES = 2  # of a speaker who is standardised; one take alone would become all zeros
MEMORY = 4 * 2**30  # bytes of one kind of tensor that are held in memory rather than read again every epoch

# All takes of a speaker -> (N, N): the takes, in the columns, by which the take of each row is standardised.
Among = Callable[[Sequence[Header]], Bool[Tensor, "N N"]]


class Batch(NamedTuple):
    """Clips side by side; `place` is each one's index in its `Clips`. A modality not asked for is empty.

    `video` holds pictures `(B, 3, T, H, W)` or OpenFace tracks `(B, F, T)`, `audio` MFCCs or a spectrogram
    `(B, F, S)`, or a speech encoder's states of each take at every speed `(B, speeds, layers, S, width)`.
    """

    video: UInt8[Tensor, "B 3 T H W"] | Float[Tensor, "B F T"]
    audio: Float[Tensor, "B ..."]
    label: Int[Tensor, " B"]
    place: Int[Tensor, " B"]


@dataclass(frozen=True)
class Look:
    """Part of a prepared clip that a model is shown; each model takes what it reads.

    Args:
        frames: pictures, evenly spaced among the prepared ones.
        size: side of a picture in pixels.
        openface_steps: steps in time of an OpenFace track; 1 is its mean.
        openface_features: values of each, the first ones of those prepared.
        speech_steps: steps in time of a speech encoder's states, over the whole take.
    """

    frames: int
    size: int
    openface_steps: int = 16
    openface_features: int = 35
    speech_steps: int = 24

    def of(self, name: str) -> tuple[int, ...]:
        """Return the settings of one input, so that two looks that agree there can have it in common."""
        concerned = {
            "video": (self.frames, self.size),
            "openface": (self.openface_steps, self.openface_features),
            "speech": (self.speech_steps,),
        }
        return concerned.get(name, ())


def needed(name: str, preparation: Preparation) -> list[str]:
    """Names of the prepared tensors behind an input: its own, and those of the other speeds of speech."""
    speeds = preparation.speech_speeds if name == "speech" else ()
    return [name, *(speech_at(speed) for speed in speeds)]


def as_tensor(name: str, arrays: Mapping[str, np.ndarray], look: Look) -> Tensor:
    """Convert a prepared clip to a model's input: pictures and sequences at the length of the look.

    Args:
        arrays: the prepared tensors, those that `needed` names.
    """
    if name == "video":
        return pictures(arrays[name], look.frames, look.size)
    if name == "openface":
        return evened(torch.from_numpy(arrays[name][:, : look.openface_features]).T, look.openface_steps)
    if name == "speech":
        states = [torch.from_numpy(array).float().transpose(1, 2) for array in arrays.values()]
        return torch.stack([evened(each, look.speech_steps).transpose(1, 2) for each in states]).half()
    return torch.from_numpy(arrays[name])


def evened(sequence: Float[Tensor, "F T"], steps: int) -> Float[Tensor, "F steps"]:
    """Resample a sequence of any length to a number of steps: means of equal parts, or steps repeated.

    >>> evened(torch.tensor([[1.0, 3.0, 5.0, 7.0]]), 2), evened(torch.tensor([[1.0]]), 2)
    (tensor([[2., 6.]]), tensor([[1., 1.]]))
    """
    return functional.adaptive_avg_pool1d(sequence, steps)


def pictures(video: np.ndarray, frames: int, size: int) -> UInt8[Tensor, "3 T H W"]:
    """Bring a prepared clip's pictures to the number of frames and the size of a model.

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
    """Input of models under one name, such as pictures, of every clip; a small one is held in memory.

    Args:
        name: a modality of the preparation.
    """

    def __init__(self, store: Store, headers: Sequence[Header], name: str, look: Look) -> None:
        self.store = store
        self.headers = headers
        self.name = name
        self.look = look
        self._needed = needed(name, Preparation.from_json(dict(headers[0].preparation)))
        first = self._read(0)
        self._held: list[Tensor] | None = None
        if first.nbytes * len(headers) <= MEMORY:
            self._held = [first, *(self._read(index) for index in range(1, len(headers)))]

    @property
    def in_memory(self) -> bool:
        """True if no worker processes are needed to prefetch."""
        return self._held is not None

    def __getitem__(self, index: int) -> Tensor:
        return self._held[index] if self._held is not None else self._read(index)

    def standardised(self, among: Among | None = None, actors: Container[Actor] | None = None) -> "Column":
        """Standardise every speaker's values to mean 0 and deviation 1, over all takes of theirs.

        OpenFace tracks are standardised on the logarithmic scale of their encoder. No label is
        used, but the other takes are, of the tested speakers too: it is transductive. And the takes must hold
        all emotions in balance, for what they have in common is taken out as the person.

        Args:
            among: the takes that each take's mean and deviation come from, over time too; all by default.
            actors: who is standardised, others stay as they are; everyone by default.

        Raises:
            InputError: for pictures, a column too large for the memory, or a speaker of few takes.
        """
        if self.name == "video" or self._held is None:
            raise InputError(
                f"{self.name} cannot be standardised per speaker: expected features that fit into memory; "
                "leave out --speaker-normalisation, or choose models of openface and speech"
            )
        other = copy(self)
        other._held = list(self._held)
        time = -2 if self.name == "speech" else -1
        speakers: dict[Actor, list[int]] = {}
        for place, header in enumerate(self.headers):
            if actors is None or header.actor in actors:
                speakers.setdefault(header.actor, []).append(place)
        few = [str(speaker) for speaker, places in speakers.items() if len(places) < FEWEST_TAKES]
        if few:
            raise InputError(
                f"{self.name} of speaker {', '.join(few)} cannot be standardised: expected {FEWEST_TAKES} or "
                "more takes of each; leave out --speaker-normalisation, or those speakers"
            )
        for places in speakers.values():
            values = torch.stack([self._held[place] for place in places]).float()
            every = torch.ones(len(places), len(places), dtype=torch.bool)
            chosen = every if among is None else among([self.headers[place] for place in places])
            if self.name == "openface":
                held = _standardised(compressed(values), time, chosen).clamp(-FARTHEST, FARTHEST)
                values = expanded(held)
            else:
                values = _standardised(values, time, chosen)
            for place, value in zip(places, values.to(self._held[0].dtype), strict=True):
                other._held[place] = value
        return other

    def _read(self, index: int) -> Tensor:
        name = self.headers[index].name
        return as_tensor(self.name, self.store.load(name, self._needed), self.look)


def _standardised(
    values: Float[Tensor, "N *any"], time: int, among: Bool[Tensor, "N N"]
) -> Float[Tensor, "N *any"]:
    """Standardise each clip by mean and deviation over its own row of clips and over time."""
    weights = among.to(values) / among.sum(dim=1, keepdim=True)
    values = values - values.mean(dim=(0, time), keepdim=True)  # or the squares would swallow the deviation
    mean, square = (
        torch.tensordot(weights, moment.mean(dim=time, keepdim=True), dims=1)
        for moment in (values, values.square())
    )
    deviation = (square - mean.square()).clamp(min=0).sqrt()
    standardised: Tensor = (values - mean) / (deviation + LEAST_DEVIATION)
    return standardised


class Clips(Dataset[Batch]):
    """The clips of a store as a model reads them.

    Args:
        columns: for "video" and "audio", as far as the model has them, the tensors it reads there.
        labels: class index of every clip.
        silence: input for silence, for a clip whose sound is dropped.
    """

    def __init__(
        self,
        columns: Mapping[str, Column],
        labels: Sequence[int],
        classes: int,
        silence: Tensor | None = None,
    ) -> None:
        self.columns = dict(columns)
        self.labels = list(labels)
        self.classes = classes
        self.silence = silence

    @property
    def in_memory(self) -> bool:
        """True if no worker processes are needed to prefetch."""
        return all(column.in_memory for column in self.columns.values())

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Batch:
        video, audio = (
            self.columns[modality][index] if modality in self.columns else torch.empty(0)
            for modality in ("video", "audio")
        )
        return Batch(video, audio, torch.tensor(self.labels[index]), torch.tensor(index))
