"""Prepared clips as tensors for training and evaluation."""

from collections import defaultdict
from collections.abc import Callable, Container, Mapping, Sequence
from copy import copy
from itertools import cycle, islice
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor
from torch.utils.data import Dataset

from cfnsr.corpus.take import Actor
from cfnsr.data.degraded import is_degraded
from cfnsr.data.store import Header, Store
from cfnsr.errors import InputError
from cfnsr.features.base import FEATURES, Look
from cfnsr.features.preparation import Preparation
from cfnsr.logarithmic import compressed, expanded

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


class Column(Dataset[Tensor]):
    """Input of models under one name, such as pictures, of every clip; a small one is held in memory."""

    def __init__(self, store: Store, headers: Sequence[Header], name: str, look: Look) -> None:
        self.store, self.headers, self.name, self.look = store, headers, name, look
        self.feature = FEATURES[name]
        self._arrays = self.feature.arrays(Preparation.from_json(dict(headers[0].preparation)))
        small = self._read(0).nbytes * len(headers) <= MEMORY
        self._held = [self._read(index) for index in range(len(headers))] if small else None

    @property
    def in_memory(self) -> bool:
        """No worker processes are needed to prefetch."""
        return self._held is not None

    def __getitem__(self, index: int) -> Tensor:
        return self._held[index] if self._held is not None else self._read(index)

    def standardised(self, among: Among | None = None, actors: Container[Actor] | None = None) -> "Column":
        """Standardise every speaker's values to mean 0 and deviation 1, over all takes of theirs.

        No label is used, but the other takes are, of the tested speakers too: it is transductive. And the
        takes must hold all emotions in balance, for what they have in common is taken out as the person.

        Args:
            among: the takes that each take's mean and deviation come from, over time too; all by default.
            actors: who is standardised; everyone by default.

        Raises:
            InputError: for pictures, a column too large for the memory, or a speaker of few takes.
        """
        time, held = self.feature.time_axis, self._held
        if time is None or held is None:
            raise InputError(
                f"{self.name} cannot be standardised per speaker: expected features that fit into memory; "
                "leave out --speaker-normalisation, or choose models of openface and speech"
            )
        if any(is_degraded(header.attributes) for header in self.headers):
            raise InputError(
                f"{self.name} cannot be standardised per speaker over degraded takes: prepare the corpus "
                "into another folder without --degraded, or leave out --speaker-normalisation"
            )
        speakers = defaultdict[Actor, list[int]](list)
        for place, header in enumerate(self.headers):
            if actors is None or header.actor in actors:
                speakers[header.actor].append(place)
        few = [str(speaker) for speaker, places in speakers.items() if len(places) < FEWEST_TAKES]
        if few:
            raise InputError(
                f"{self.name} of speaker {', '.join(few)} cannot be standardised: expected {FEWEST_TAKES} or "
                "more takes of each; leave out --speaker-normalisation, or those speakers"
            )
        column = copy(self)
        column._held = list(held)
        for places in speakers.values():
            values = torch.stack([held[place] for place in places]).float()
            every = torch.ones(len(places), len(places), dtype=torch.bool)
            chosen = every if among is None else among([self.headers[place] for place in places])
            values = _standardise(compressed(values) if self.feature.logarithmic else values, time, chosen)
            if self.feature.logarithmic:
                values = expanded(values.clamp(-FARTHEST, FARTHEST))
            for place, value in zip(places, values.to(held[0].dtype), strict=True):
                column._held[place] = value
        return column

    def _read(self, index: int) -> Tensor:
        name = self.headers[index].name
        return torch.from_numpy(self.feature.to_model(self.store.load(name, self._arrays), self.look))


def _standardise(
    values: Float[Tensor, "N *any"], time: int, among: Bool[Tensor, "N N"]
) -> Float[Tensor, "N *any"]:
    """Standardise each take by mean and deviation over its own row of takes and over time."""
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
        columns: for "video", "audio" or both.
        labels: class index of every clip.
        silence: input for silence, for a clip whose sound is dropped.
        corpora: name of every clip's corpus, where there are several.
    """

    def __init__(
        self,
        columns: Mapping[str, Column],
        labels: Sequence[int],
        classes: int,
        silence: Tensor | None = None,
        corpora: Sequence[str] = (),
    ) -> None:
        self.columns, self.labels = dict(columns), list(labels)
        self.classes, self.silence = classes, silence
        self.corpora = list(corpora) or [""] * len(self.labels)

    @property
    def in_memory(self) -> bool:
        """No worker processes are needed to prefetch."""
        return all(column.in_memory for column in self.columns.values())

    def __len__(self) -> int:
        return len(self.labels)

    def balanced(self, places: Sequence[int]) -> list[int]:
        """Repeat places until every class of every corpus has as many, as evenly as can be.

        >>> Clips({}, [0, 0, 0, 1, 1], 2).balanced([0, 1, 2, 3, 4])
        [0, 1, 2, 3, 4, 3]
        """
        groups = defaultdict[tuple[str, int], list[int]](list)
        for place in places:
            groups[self.corpora[place], self.labels[place]].append(place)
        most = max(map(len, groups.values()), default=0)
        return [place for group in groups.values() for place in islice(cycle(group), most)]

    def __getitem__(self, index: int) -> Batch:
        read = {modality: column[index] for modality, column in self.columns.items()}
        video, audio = (read.get(modality, torch.empty(0)) for modality in ("video", "audio"))
        return Batch(video, audio, torch.tensor(self.labels[index]), torch.tensor(index))
