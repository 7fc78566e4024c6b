"""Hidden states of a pretrained speech encoder over a whole take, at several speeds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float16

from cfnsr.features.base import Arrays, Feature, Look, Shape, Sound, pool_steps
from cfnsr.features.speech_encoder import SAMPLE_RATE, SpeechEncoder, find_encoder
from cfnsr.media.mfcc import resample

if TYPE_CHECKING:
    from cfnsr.features.preparation import Preparation


class Speech(Feature):
    """Hidden states of a speech encoder, a step every 80 ms; a faster take is higher too.

    A clip keeps `speech` (layers, steps, width) float16, and `speech_0.9` and the like for further speeds;
    a model reads (speeds, layers, steps, width): in training one of the speeds, in prediction all.
    """

    name, role, file = "speech", "audio", "audio"
    weights = "speech_sha256"
    whole_take = pretrained = several = True
    time_axis = -2
    nothing = "average speech"

    def extract(self, source: Sound, preparation: Preparation, threads: int = 0) -> dict[str, np.ndarray]:
        encoder = encoder_of(preparation)
        arrays = {}
        for speed in (1.0, *preparation.speech_speeds):
            sound = resample(source.samples, round(source.rate * speed), SAMPLE_RATE)
            arrays[speech_at(speed)] = encoder.features(sound, threads=threads)
        return arrays

    def to_model(self, arrays: Arrays, look: Look) -> Float16[np.ndarray, "speeds layers steps width"]:
        speeds = [states.swapaxes(1, 2).astype(np.float32) for states in arrays.values()]
        even = np.stack([pool_steps(each, look.speech_steps) for each in speeds])
        return even.swapaxes(2, 3).astype(np.float16)

    def arrays(self, preparation: Preparation) -> tuple[str, ...]:
        return (self.name, *(speech_at(speed) for speed in preparation.speech_speeds))

    def concerns(self, look: Look) -> tuple[int, ...]:
        return (look.speech_steps,)

    def sizes(self, clips: Iterable[Arrays]) -> dict[str, int]:
        layers, _, width = next(iter(clips))[self.name].shape
        return {"speech_layers": layers, "speech_width": width}

    def absent(self, preparation: Preparation, settings: Mapping[str, int]) -> dict[str, np.ndarray]:
        nothing = np.full((settings["speech_layers"], 1, settings["speech_width"]), np.nan, np.float16)
        return dict.fromkeys(self.arrays(preparation), nothing)

    def graph_shape(self, look: Look, preparation: Preparation, settings: Mapping[str, int]) -> Shape:
        speeds = 1 + len(preparation.speech_speeds)
        return speeds, settings["speech_layers"], look.speech_steps, settings["speech_width"]

    def noise(
        self, rng: np.random.Generator, shape: Shape, preparation: Preparation
    ) -> dict[str, np.ndarray]:
        return {name: rng.standard_normal(shape[1:]).astype(np.float16) for name in self.arrays(preparation)}


def encoder_of(preparation: Preparation) -> SpeechEncoder:
    """The encoder that clips are prepared with.

    Raises:
        InputError: it is not there, or another one.
    """
    return find_encoder(preparation.speech_encoder, preparation.speech_sha256)


def speech_at(speed: float) -> str:
    """Name of the array of hidden states of a take that is played at a speed.

    >>> speech_at(1), speech_at(0.9)
    ('speech', 'speech_0.9')
    """
    return "speech" if speed == 1 else f"speech_{speed:g}"
