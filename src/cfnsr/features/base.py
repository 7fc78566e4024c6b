"""The contract of an input: one file each, from what was recorded to what a model reads."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from cfnsr.media import mfcc

if TYPE_CHECKING:
    from cfnsr.features.preparation import Preparation

Arrays = Mapping[str, NDArray[Any]]  # of a clip, by name
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Look:
    """Amount of a prepared clip that a model reads; each input takes what concerns it.

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


class Feature(ABC):
    """One input of the models: how it is made of a recording, kept in a clip, and read by a model.

    A clip keeps arrays; `to_model` makes of them, with NumPy alone, what a model reads, in PyTorch and in an
    exported file alike. Sizes that a model must know before it is built come from `sizes`.

    Attributes:
        name: of the input, and of its first array in a clip.
        role: "video" or "audio", the stream of a model that reads it.
        file: of a take, what it is made of: "video", "audio" or "openface".
        dtype: of its numbers in an exported graph.
        whole_take: it is made of the whole take, not only of the seconds that are kept.
        weights: of a network that makes it, the setting of a preparation that has the SHA-256 of its files.
        pretrained: it needs the pretrained speech encoder.
        several: a model reads one of several versions of it in training, and in prediction all.
        time_axis: of what a model reads, over which too a speaker is standardised; None where it cannot be.
        logarithmic: it is standardised on a logarithmic scale.
        computed: it is computed here, of pictures or sound that may be missing: models can be trained without
            it, and answer without it. One of sound is a `mel.Mel`.
        columns: names of its values at each step, where they have names.
        nothing: words for what `absent` gives, or for the average that stands in its place.
        citation: of the software that measured it.
    """

    name: str
    role: str
    file: str
    dtype = "float32"
    whole_take = False
    weights = ""
    pretrained = False
    several = False
    time_axis: int | None = None
    logarithmic = False
    computed = False
    columns: tuple[str, ...] = ()
    nothing = "an average input"
    citation = ""

    @property
    def of_pictures(self) -> bool:
        """True if it is made of a video's pictures."""
        return self.file == "video"

    @abstractmethod
    def extract(self, source: Any, preparation: Preparation, threads: int = 0) -> dict[str, np.ndarray]:
        """Arrays of a clip, made of what was decoded.

        Args:
            source: `face.Faces` of a "video" file, `Sound` of an "audio" one, `OpenFaceTrack` of the rows
                with a face of an "openface" one.
            preparation: how.
            threads: of a network; 0 lets it choose.

        Raises:
            MediaError: the recording does not have it.
        """

    @abstractmethod
    def to_model(self, arrays: Arrays, look: Look) -> NDArray[Any]:
        """Make the array that a model reads of those of a clip that `arrays` names."""

    def arrays(self, preparation: Preparation) -> tuple[str, ...]:
        """Names of the arrays of a clip that a model's input is made of."""
        return (self.name,)

    def concerns(self, look: Look) -> tuple[int, ...]:
        """Part of a look that `to_model` depends on: looks that agree there share its result."""
        return ()

    def absent(self, preparation: Preparation, settings: Mapping[str, int]) -> dict[str, np.ndarray]:
        """Arrays of a clip in which there is nothing; `settings` are those of `sizes`."""
        raise NotImplementedError

    @property
    def replaceable(self) -> bool:
        """True if a model can be given nothing in its place."""
        return type(self).absent is not Feature.absent

    def sizes(self, clips: Iterable[Arrays]) -> dict[str, int]:
        """Settings of `create_model`, and most steps of a look, that depend on what the clips hold."""
        return {}

    @property
    def entry(self) -> str:
        """Name of the input in an exported graph."""
        return self.name

    def graph_arrays(self, preparation: Preparation) -> tuple[str, ...]:
        """Names of the arrays of a clip that an exported graph's input is made of."""
        return self.arrays(preparation)

    def to_graph(self, arrays: Arrays, look: Look) -> NDArray[Any]:
        """Make the array that an exported graph reads of one clip."""
        return self.to_model(arrays, look).astype(self.dtype, copy=False)

    @abstractmethod
    def graph_shape(self, look: Look, preparation: Preparation, settings: Mapping[str, int]) -> Shape:
        """Shape of `to_graph`; `settings` are those of `sizes`."""

    def noise(
        self, rng: np.random.Generator, shape: Shape, preparation: Preparation
    ) -> dict[str, np.ndarray]:
        """Random arrays whose `to_graph` has a shape: what an export is tried on where no clips are given."""
        return {self.name: rng.standard_normal(shape).astype(np.float32)}


class Sound:
    """The sound of a take or a window, and the part of it that most features are made of.

    Args:
        samples: mono, full scale 1, (N,).
        rate: in Hz.
        preparation: says which seconds are kept.
    """

    def __init__(self, samples: Float[np.ndarray, " N"], rate: int, preparation: Preparation) -> None:
        self.samples, self.rate, self.preparation = samples, rate, preparation

    @cached_property
    def waveform(self) -> Float[np.ndarray, " M"]:
        """The seconds that are kept, at 44.1 kHz.

        Raises:
            MediaError: it is too short.
        """
        waveform = mfcc.resample(self.samples, self.rate)
        kept, _ = mfcc.window(waveform, skip=self.preparation.skip, keep=self.preparation.keep)
        return kept


FEATURES: dict[str, Feature] = {}  # by name, in the order in which they are listed


def pool_steps(sequence: NDArray[Any], steps: int) -> Float[np.ndarray, "*any steps"]:
    """Pool a sequence (..., T) of any length to a number of steps: means of equal parts, or some repeated.

    Sums run in time and in float32, as PyTorch's `adaptive_avg_pool1d` has them: equal to the last bit where
    there are two steps or more.

    >>> pool_steps(np.array([[1.0, 3.0, 5.0, 7.0]]), 2), pool_steps(np.array([[1.0]]), 2)
    (array([[2., 6.]], dtype=float32), array([[1., 1.]], dtype=float32))
    """
    first, last = parts(sequence.shape[-1], steps)
    total = np.zeros((*sequence.shape[:-1], steps), np.float32)
    for offset in range((last - first).max()):
        place = first + offset
        inside = place < last
        total[..., inside] += sequence[..., place[inside]]
    return total / (last - first).astype(np.float32)


def parts(length: int, count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where each of some equal parts begins and ends; parts share what lies in both."""
    part = np.arange(count)
    return part * length // count, -(-(part + 1) * length // count)
