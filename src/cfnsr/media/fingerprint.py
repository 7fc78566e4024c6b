"""Fingerprints of recordings: by their bytes, and by their sound in whatever codec."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from cfnsr.corpus.take import MEDIA_SUFFIXES
from cfnsr.media.errors import MediaError
from cfnsr.media.mfcc import resample
from cfnsr.processes import time_limit

SAMPLE_RATE = 8_000  # Hz: what every codec and telephone keeps
N_FFT = 2048  # samples, 256 ms: long, because a voice's harmonics separate two takes of one sentence
HOP = 256  # samples, 32 ms
STEPS = 128  # 4.1 s around the middle of the sound
FIRST_BIN, LAST_BIN = 38, 512  # 148 to 2000 Hz: above the hum, within every codec's band
BANDS = (LAST_BIN - FIRST_BIN) // 2  # of two bins, 7.8 Hz
SOUND_MAP = (STEPS, BANDS)  # shape of a sound's picture
RANGE = 25.0  # dB below the loudest place; what is quieter is the codec's, not the actor's
LONGEST = 600.0  # seconds read
SHORTEST = 0.3  # seconds; less sound is no evidence
SILENCE = 1e-5  # -100 dBFS: the loudest sample of what counts as silent

# Measured on all of RAVDESS's speech and on copies of it as mp3, AAC, Opus, WMA, wav and flac at 8 to
# 48 kHz and other levels: different takes reach at most 0.57, copies at least 0.85.
POOL = (2, 13)  # steps and bands averaged in the glance
GLANCE = 0.7  # cosine of the glances above which two sounds are compared closely
LAGS = 4  # steps (128 ms) by which the middles of two copies may differ
SAME = 0.8  # correlation above which two sounds are one recording

BLOCK = 1024  # sounds glanced at together
BATCH = 64  # pairs compared closely together


@dataclass(frozen=True, eq=False)
class Content:
    """Content of a file, to be compared with others by `copies`.

    Args:
        sha256: of its bytes; empty where it cannot be read.
        sound: its picture (128, 237), see `sound_map`; None where there is no sound to go by.
        problem: why there is none, one line; empty for a file that is not media (features, landmarks).
        broken: the problem is a damaged file, not a silent one.
    """

    sha256: str
    sound: NDArray[np.uint8] | None = None
    problem: str = ""
    broken: bool = False


def read_content(path: Path) -> Content:
    """Hash a file and read its sound; a damaged file is an answer, not an error."""
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        return Content("", None, f"{path} cannot be read: {error.strerror}", broken=True)
    if path.suffix.lower() not in MEDIA_SUFFIXES:
        return Content(digest)
    from cfnsr.media.decode import decode

    try:
        with time_limit(path):
            found = decode(path, video=False, end=LONGEST, threads=1)
        sound = None if found.waveform is None else sound_map(found.waveform, found.sample_rate)
    except MediaError as error:
        return Content(digest, None, str(error), broken=error.reason != "no sound")
    except Exception as error:  # a codec's own
        message = " ".join(str(error).split())
        return Content(digest, None, f"{path} is broken: {type(error).__name__}: {message}", broken=True)
    return Content(digest, sound, "" if sound is not None else f"{path} is silent")


def sound_map(waveform: NDArray[np.float32], sample_rate: int) -> NDArray[np.uint8] | None:
    """Narrow-band spectrogram (128 steps, 237 bands), alike for all copies of a sound; None for silence.

    It is centred on the middle of the amplitude, so that a codec's delay or silence cut from the ends
    moves it by a few steps at most, and counts in tenths of a decibel from `RANGE` below its loudest
    place, so that gain does not matter.
    """
    samples = resample(np.asarray(waveform, np.float32), sample_rate, SAMPLE_RATE).astype(np.float64)
    if len(samples) < SHORTEST * SAMPLE_RATE:
        return None
    spectrum, bins = np.fft.rfft(samples), np.fft.rfftfreq(len(samples)) * N_FFT
    spectrum[(bins < FIRST_BIN) | (bins >= LAST_BIN)] = 0
    samples = np.fft.irfft(spectrum, len(samples))
    amplitude = np.abs(samples)
    if amplitude.max() < SILENCE:
        return None
    middle = round(float(np.average(np.arange(len(samples)), weights=amplitude)))
    length = (STEPS - 1) * HOP + N_FFT
    around = np.pad(samples, length)[middle + length - length // 2 :][:length]
    frames = sliding_window_view(around, N_FFT)[::HOP] * np.hanning(N_FFT)
    power = np.abs(np.fft.rfft(frames)[:, FIRST_BIN:LAST_BIN]) ** 2
    decibels = 10 * np.log10(np.maximum(power.reshape(STEPS, BANDS, 2).sum(axis=2), 1e-30))
    tenths = np.rint(10 * np.maximum(decibels - decibels.max() + RANGE, 0))
    return np.asarray(tenths, np.uint8)


def copies(contents: Sequence[Content]) -> NDArray[np.int64]:
    """Find files that are one recording: a number for each set of copies, -1 for a file that has none.

    Files are copies where their bytes agree or their sounds do. Two sounds are first compared coarsely (one
    product of matrices over all), and those alike are compared closely: the change of the picture over
    time and bands, which differs between two performances of one sentence, correlated at every small lag.

    >>> copies([Content("a"), Content("b"), Content("a"), Content("c")])
    array([ 0, -1,  0, -1])
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    first: dict[str, int] = {}
    linked, sounds = [], {}
    for place, content in enumerate(contents):
        earlier = first.setdefault(content.sha256, place) if content.sha256 else place
        linked.append((place, earlier))
        if content.sound is not None and earlier == place:
            sounds[place] = content.sound
    if places := list(sounds):
        linked += [(places[one], places[other]) for one, other in alike(np.stack(list(sounds.values())))]
    ones, others = np.array(linked, np.int64).reshape(-1, 2).T
    graph = coo_array((np.ones(len(ones)), (ones, others)), shape=(len(contents), len(contents)))
    numbers = connected_components(graph, directed=False)[1] if len(contents) else np.empty(0, np.int64)
    several = np.bincount(numbers) > 1
    return np.asarray(np.where(several, np.cumsum(several) - 1, -1)[numbers], np.int64)


def alike(sounds: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Find pairs of sounds (N, 128, 237) that are one recording: (pairs, 2) positions, the smaller first."""
    glances = _glances(sounds)
    found = [np.empty((0, 2), np.int64)]
    for start in range(0, len(sounds), BLOCK):
        cosines = glances[start : start + BLOCK] @ glances[start:].T
        candidates = np.argwhere(np.triu(cosines > GLANCE, 1)) + start
        for first in range(0, len(candidates), BATCH):
            pairs = candidates[first : first + BATCH]
            found.append(pairs[closeness(sounds[pairs[:, 0]], sounds[pairs[:, 1]]) > SAME])
    return np.concatenate(found)


def _glances(sounds: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Coarse pictures of unit length (N, 1152), without what all takes of a voice have in common."""
    steps, bands = STEPS // POOL[0], BANDS // POOL[1]
    whole = sounds[:, :, : bands * POOL[1]]
    pooled = whole.reshape(len(sounds), steps, POOL[0], bands, POOL[1]).mean(axis=(2, 4), dtype=np.float32)
    pooled -= pooled.mean(axis=1, keepdims=True)
    pooled -= pooled.mean(axis=2, keepdims=True)
    flat = pooled.reshape(len(sounds), -1)
    return np.asarray(flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6), np.float32)


def closeness(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Similarity of each pair of sounds (pairs, 128, 237): the correlation at its best lag, at most 1.

    It correlates the change over frequency: the harmonics of the voice on their way, which differ between
    two performances of one sentence even where their words fall together.
    """
    ours, theirs = (np.diff(sounds.astype(np.float32), axis=2) for sounds in (one, other))
    scale = np.linalg.norm(ours, axis=(1, 2)) * np.linalg.norm(theirs, axis=(1, 2))
    products = [
        np.einsum("ntb,ntb->n", ours[:, max(lag, 0) : STEPS + lag], theirs[:, max(-lag, 0) : STEPS - lag])
        for lag in range(-LAGS, LAGS + 1)
    ]
    return np.asarray(np.max(products, axis=0) / np.maximum(scale, 1e-6))
