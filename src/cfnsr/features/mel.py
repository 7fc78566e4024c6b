"""MFCCs and the log-mel spectrogram, both computed of a clip's waveform."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from cfnsr.features.base import Arrays, Feature, Look, Shape, Sound
from cfnsr.media import log_mel, mfcc

if TYPE_CHECKING:
    from cfnsr.features.preparation import Preparation

PCM = 32_767  # of a sample at full scale, in 16 bits
LOUDNESS = 0.1  # of noise, of full scale


class Mel(Feature):
    """Features of the seconds of sound that are kept (section 3.2), beside that sound itself.

    A clip keeps them (bands, steps) float32, and `waveform` (N,) at 44.1 kHz: int16 in a store, and float32
    before that. An exported graph takes the waveform.

    Args:
        name: of the input.
        compute: waveform (N,) -> (bands, steps).
        hop: samples from one step to the next.
    """

    role, file = "audio", "audio"
    entry = "waveform"
    computed = True
    nothing = "silence"

    def __init__(self, name: str, compute: Callable[[np.ndarray], np.ndarray], hop: int) -> None:
        self.name, self.compute, self.hop = name, compute, hop

    def extract(self, source: Sound, preparation: Preparation, threads: int = 0) -> dict[str, np.ndarray]:
        return {self.name: self.compute(source.waveform), "waveform": source.waveform}

    def to_model(self, arrays: Arrays, look: Look) -> Float[np.ndarray, "bands steps"]:
        return arrays[self.name]

    def absent(self, preparation: Preparation, settings: Mapping[str, int]) -> dict[str, np.ndarray]:
        return {
            self.name: self.silence(preparation.samples),
            "waveform": np.zeros(preparation.samples, np.float32),
        }

    @lru_cache(maxsize=4)  # noqa: B019 - there are two of these, as long as the process lives
    def silence(self, samples: int) -> Float[np.ndarray, "bands steps"]:
        """The features of a waveform of zeros; not to be written to."""
        return self.compute(np.zeros(samples))

    def graph_arrays(self, preparation: Preparation) -> tuple[str, ...]:
        return ("waveform",)

    def to_graph(self, arrays: Arrays, look: Look) -> Float[np.ndarray, " N"]:
        return as_float(arrays["waveform"])

    def graph_shape(self, look: Look, preparation: Preparation, settings: Mapping[str, int]) -> Shape:
        return (preparation.samples,)

    def noise(
        self, rng: np.random.Generator, shape: Shape, preparation: Preparation
    ) -> dict[str, np.ndarray]:
        return {"waveform": (LOUDNESS * rng.standard_normal(shape)).astype(np.float32)}


MFCC = Mel("audio", mfcc.mfcc, mfcc.HOP)
LOG_MEL = Mel("log_mel", log_mel.log_mel, log_mel.HOP)  # what ERANNs read


def as_float(waveform: NDArray[Any]) -> Float[np.ndarray, " N"]:
    """A clip's sound from -1 to 1, of 16 bits as a store keeps it, or of floating-point numbers.

    >>> as_float(np.array([-32767, 0, 32767], np.int16))
    array([-1.,  0.,  1.], dtype=float32)
    """
    if np.issubdtype(waveform.dtype, np.integer):
        return waveform.astype(np.float32) / np.float32(PCM)
    return waveform.astype(np.float32, copy=False)
