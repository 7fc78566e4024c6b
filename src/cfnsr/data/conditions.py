"""Bad input: corruptions of pictures and sound, as by a failing microphone or camera, and standardised
speakers of whom fewer takes are known.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from jaxtyping import Bool, Float, Num
from torch import Tensor
from torch.nn import functional

from cfnsr.data.augment import RGB_MEAN
from cfnsr.data.dataset import Among
from cfnsr.data.store import Header, Store
from cfnsr.features.base import FEATURES
from cfnsr.features.mel import PCM, Mel
from cfnsr.media.degrade import noise_power

BLUR = 1 / 16  # deviation of the Gaussian, as a part of the picture's side: features melt, the face stays
DARK = 0.15  # of the light
KEPT = 2**28  # bytes of sound features that are not computed again
CLEAN, DEGRADED = "clean", "degraded_sound"
KNOWN = "the speaker is standardised by"

Sound = Callable[[np.ndarray, np.random.Generator], np.ndarray]  # waveform (N,), source of randomness
Pictures = Callable[[Tensor], Tensor]  # (B, 3, T, H, W) in 0..255


@dataclass(frozen=True)
class Condition:
    """A corruption of one modality while the other one stays, or of the takes a speaker is known by."""

    name: str  #: in `conditions.csv`, and of `label` in words
    meaning: str  #: what it does, in the report
    modality: str = ""  #: "video" or "audio"; empty where it concerns both
    absent: bool = False  #: nothing of it is left
    sound: Sound | None = None  #: for "audio"
    pictures: Pictures | None = None  #: for "video"
    among: Among | None = None  #: the takes by which a tested speaker is standardised, if speakers are


def silent(waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Replace a waveform by silence."""
    return np.zeros_like(waveform)


def noisy(decibels: float) -> Sound:
    """Return a function that adds white Gaussian noise to a waveform, at a signal-to-noise ratio."""

    def add(waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        deviation = np.sqrt(noise_power(waveform, decibels))
        noise: np.ndarray = waveform + rng.normal(0, deviation, len(waveform))
        return noise

    return add


def no_picture(video: Num[Tensor, "B 3 T H W"]) -> Float[Tensor, "B 3 T H W"]:
    """Replace pictures by the mean colour, which is zero once normalised."""
    mean = 255 * torch.tensor(RGB_MEAN, device=video.device)
    return mean.view(1, 3, 1, 1, 1).expand(video.shape)


def blurred(video: Num[Tensor, "B 3 T H W"]) -> Float[Tensor, "B 3 T H W"]:
    """Blur each picture by a Gaussian, reflected at its edges.

    >>> blurred(torch.full((1, 3, 1, 64, 64), 9.0)).unique().round()
    tensor([9.])
    """
    deviation = BLUR * video.shape[-1]
    reach = min(round(3 * deviation), video.shape[-1] - 1)
    places = torch.arange(-reach, reach + 1, device=video.device)
    weights = torch.exp(-0.5 * (places / deviation) ** 2)
    weights = weights / weights.sum()
    frames = video.float().flatten(0, 2)[:, None]  # (B * 3 * T, 1, H, W)
    frames = functional.pad(frames, (reach, reach, reach, reach), mode="reflect")
    for shape in ((1, 1, 1, -1), (1, 1, -1, 1)):
        frames = functional.conv2d(frames, weights.view(shape))
    return frames.view(video.shape)


def dark(video: Num[Tensor, "B 3 T H W"]) -> Float[Tensor, "B 3 T H W"]:
    """Take most of the light away."""
    return DARK * video


def few(takes: int | None = None, emotions: int | None = None) -> Among:
    """Choose a take itself and some others of its speaker, as of a person of whom no more is known.

    What is drawn depends on the speaker's and the takes' names, never on a model. Labels only choose the
    takes that a person is known by; the standardisation itself uses none.

    Args:
        takes: how many, the take itself among them; all by default.
        emotions: of how many emotions, the take's own and others drawn for the speaker; of all by default.
    """

    def among(headers: Sequence[Header]) -> Bool[Tensor, "N N"]:
        actor = headers[0].actor
        there = sorted({header.emotion for header in headers}, key=lambda each: (_hash(actor, each), each))
        emotion = np.array([there.index(header.emotion) for header in headers])
        own, other = emotion[:, None], emotion[None, :]
        # Beside its own the first that were drawn, of which its own may be one.
        beside = len(there) if emotions is None else emotions - 1
        allowed = (other == own) | (other < beside + (own < beside))
        lots = np.array([_hash(header.name) for header in headers], dtype=float)
        itself = np.eye(len(headers), dtype=bool)
        order = np.where(itself, -1.0, np.where(allowed, lots, np.inf)).argsort(axis=1).argsort(axis=1)
        return torch.from_numpy((order < (takes or len(headers))) & (allowed | itself))

    return among


def _hash(*words: object) -> int:
    """Hash words to a number that looks random, but is always the same."""
    return int.from_bytes(hashlib.sha256(" ".join(map(str, words)).encode()).digest()[:8])


_EVERY = (
    Condition("silent_sound", "no sound: the recording is silent", "audio", absent=True, sound=silent),
    Condition("noise_20db", "white noise 20 dB below the sound", "audio", sound=noisy(20)),
    Condition("noise_10db", "white noise 10 dB below the sound", "audio", sound=noisy(10)),
    Condition("noise_0db", "white noise as strong as the sound", "audio", sound=noisy(0)),
    Condition(
        "no_picture",
        "no pictures: every frame is one plain colour",
        "video",
        absent=True,
        pictures=no_picture,
    ),
    Condition(
        "blurred_face",
        "the pictures are blurred until the features of a face melt",
        "video",
        pictures=blurred,
    ),
    Condition("dark_face", "most of the light is gone", "video", pictures=dark),
    Condition("five_takes", f"{KNOWN} five takes, this one and four others", among=few(5)),
    Condition(
        "two_emotions", f"{KNOWN} 16 takes, of the emotion of this one and another", among=few(16, emotions=2)
    ),
    Condition("one_emotion", f"{KNOWN} takes of the emotion of this one alone", among=few(emotions=1)),
)
CONDITIONS = {condition.name: condition for condition in _EVERY}  # in the order of the report
MEANINGS = {
    CLEAN: "the test clips as they are",
    **{each.name: each.meaning for each in _EVERY},
    # Of a corpus that was prepared with degraded versions of its takes.
    DEGRADED: "the sound of another microphone, codec or room, drawn for each clip",
}


def label(name: str) -> str:
    """Write a condition's name in words.

    >>> label("noise_20db"), label("silent_sound")
    ('noise 20 dB', 'silent sound')
    """
    return name.replace("_", " ").replace("0db", "0 dB")


def in_order(rows: Iterable[Iterable[str]]) -> list[str]:
    """List the names in some rows once: clean first, then the conditions in the order of the report."""
    there = dict.fromkeys(name for row in rows for name in row)
    return sorted(there, key=lambda name: [*MEANINGS, name].index(name))


def conditions_of(reads: Mapping[str, str], *, normalised: bool = False) -> dict[str, Condition]:
    """Conditions that concern what a model reads, if it is computed here, and leave it something to go by.

    Of standardised speakers they are the takes that those are known by.

    Args:
        reads: inputs for "video", "audio" or both.
        normalised: whether speakers are standardised.
    """
    if normalised:
        return {name: condition for name, condition in CONDITIONS.items() if condition.among is not None}
    spoilt = {modality for modality, name in reads.items() if FEATURES[name].computed}
    return {
        name: condition
        for name, condition in CONDITIONS.items()
        if condition.modality in spoilt and not (condition.absent and len(reads) == 1)
    }


class CorruptedSound:
    """Sound features of a store's clips under bad conditions; computed once, as far as memory goes.

    A clip's noise depends on its name and the condition alone, so that it is the same for every model.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self._kept: dict[tuple[str, str, str], Tensor] = {}

    def __call__(self, name: str, condition: Condition, reads: str) -> Float[Tensor, "F S"]:
        """Return the features of one clip: its name, a condition of sound, and "audio" or "log_mel"."""
        key = name, condition.name, reads
        if key not in self._kept:
            waveform = self.store.load(name, ["waveform"])["waveform"] / PCM
            rng = np.random.default_rng(_hash(name, condition.name))
            corrupt, mel = cast(Sound, condition.sound), cast(Mel, FEATURES[reads])
            features = torch.from_numpy(mel.compute(corrupt(waveform, rng)))
            if len(self._kept) * features.nbytes >= KEPT:
                return features
            self._kept[key] = features
        return self._kept[key]
