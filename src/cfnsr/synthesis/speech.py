"""Speech-like sound: glottal pulses and noise through the moving resonances of a throat.

The source and filter of Fant (1960), Acoustic Theory of Speech Production: a train of pulses and a breath of
noise are cut into short overlapping spectra, and each is multiplied by the throat's response at that moment.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cfnsr.synthesis.acting import Prosody
from cfnsr.synthesis.cast import Throat

Array = NDArray[np.float64]
Single = NDArray[np.float32]

SAMPLE_RATE = 48_000
WINDOW = 1024  # samples of one spectrum, 21 ms
HOP = 256  # samples between spectra, 5.3 ms
ROOT_HANN = np.sqrt(0.5 - 0.5 * np.cos(2.0 * np.pi * np.arange(WINDOW) / WINDOW)).astype(np.float32)
SYLLABLE_SECONDS = 0.225  # at tempo 1
PLAIN_LEVEL_DB = -36.0  # root mean square of neutral speech beside full scale, near RAVDESS's
ROOM_LEVEL_DB = -78.0  # the silent studio
LOUDEST = 0.92  # no sample goes higher
PLAIN_TILT = -9.0  # dB an octave by which a plain voice falls above TILT_FROM
TILT_FROM = 250.0  # Hz
TREMOR_HERTZ = 7.0
UPPER_FORMANTS = ((3500.0, 260.0), (4500.0, 320.0))  # (Hz, bandwidth): the same in all sounds
BANDWIDTHS = (80.0, 110.0, 160.0)  # Hz, of the first three formants
PEAK = 7.0  # ratio of amplitudes by which a formant stands out of the slope


@dataclass(frozen=True)
class Phone:
    """A sound of speech: relative length, three formants in Hz, voice, hiss and its centre in Hz, jaw."""

    length: float
    formants: tuple[float, float, float]
    voice: float
    hiss: float = 0.0
    centre: float = 3000.0
    opening: float = 0.0


PHONES = {
    "I": Phone(1.0, (400, 1950, 2550), 1.0, opening=0.45),
    "A": Phone(1.3, (730, 1150, 2450), 1.0, opening=1.0),
    "O": Phone(1.3, (560, 860, 2450), 1.0, opening=0.8),
    "@": Phone(0.8, (500, 1450, 2450), 0.8, opening=0.5),
    "r": Phone(0.6, (420, 1250, 1650), 0.7, opening=0.3),
    "ng": Phone(0.7, (280, 1300, 2400), 0.5, opening=0.2),
    "b": Phone(0.5, (250, 900, 2200), 0.12, hiss=0.05, centre=900.0),
    "d": Phone(0.5, (250, 1700, 2600), 0.15, hiss=0.10, centre=3500.0, opening=0.1),
    "g": Phone(0.5, (250, 1900, 2300), 0.15, hiss=0.08, centre=2000.0, opening=0.1),
    "dh": Phone(0.4, (300, 1400, 2600), 0.4, hiss=0.08, centre=5500.0, opening=0.15),
    "k": Phone(0.6, (300, 1900, 2400), 0.0, hiss=0.22, centre=2200.0, opening=0.15),
    "t": Phone(0.6, (300, 1700, 2600), 0.0, hiss=0.25, centre=4500.0, opening=0.1),
    "s": Phone(0.9, (300, 1700, 2600), 0.0, hiss=0.35, centre=6500.0, opening=0.15),
    "z": Phone(0.8, (280, 1700, 2600), 0.3, hiss=0.20, centre=6000.0, opening=0.15),
}
# "Kids are talking by the door", "Dogs are sitting by the door": seven syllables each; a capital is a vowel,
# an accent marks the stressed ones.
STATEMENTS = {
    1: "k 'I d z A r t 'O k I ng b A I dh @ d 'O r",
    2: "d 'O g z A r s 'I t I ng b A I dh @ d 'O r",
}
SYLLABLES = 7


@dataclass(frozen=True)
class Utterance:
    """A statement laid out in time, one row a spectrum (`HOP` samples apart).

    Args:
        pitch: fundamental in Hz (rows,).
        voice: loudness of the voice (rows,), 0 to 1.
        hiss: loudness of the hissing of consonants (rows,).
        centre: of the hiss in Hz (rows,).
        formants: in Hz (rows, 3).
        opening: of the mouth (rows,), 0 to 1.
    """

    pitch: Array
    voice: Array
    hiss: Array
    centre: Array
    formants: Array
    opening: Array


def utter(
    statement: int, prosody: Prosody, throat: Throat, seconds: float, start: float, rng: np.random.Generator
) -> Utterance:
    """Lay a statement out in time: begin, pitch and mouth opening of each sound.

    Args:
        statement: 1 or 2, as in RAVDESS.
        start: when the speech begins, in seconds.
    """
    names = STATEMENTS[statement].split()
    phones = [PHONES[name.lstrip("'")] for name in names]
    stressed = np.array([name.startswith("'") for name in names])
    lengths = np.array([phone.length for phone in phones]) * rng.normal(1.0, 0.06, len(phones)).clip(0.8, 1.2)
    spoken = min(SYLLABLES * SYLLABLE_SECONDS / prosody.tempo, seconds - start - 0.25)
    ends = start + np.cumsum(lengths) / lengths.sum() * spoken
    middles = ends - lengths / lengths.sum() * spoken / 2

    rows = int(np.ceil(seconds * SAMPLE_RATE / HOP)) + WINDOW // HOP
    time = np.arange(rows) * HOP / SAMPLE_RATE
    sounding = np.clip(np.searchsorted(ends, time), 0, len(phones) - 1)
    inside = (time >= start) & (time < ends[-1])

    def held(values: list[float], smoothing: float) -> Array:
        return _smooth(np.where(inside, np.array(values)[sounding], 0.0), smoothing)

    courses = zip(*(phone.formants for phone in phones), strict=True)
    formants = np.stack([np.interp(time, middles, course) for course in courses], axis=1)
    progress = np.clip((time - start) / spoken, 0.0, 1.0)
    accents = np.exp(-0.5 * ((time[:, None] - middles[stressed]) / 0.11) ** 2).sum(axis=1).clip(0.0, 1.0)
    glide = np.clip((progress - 0.72) / 0.28, 0.0, 1.0)
    semitones = (
        prosody.pitch
        + prosody.accent * (accents - 0.35)
        + prosody.ending * glide
        - 1.5 * (progress - 0.5)  # declination: breath runs out
        + 0.25 * _smooth(rng.standard_normal(rows), 0.08) * np.sqrt(0.08 * SAMPLE_RATE / HOP)
    )
    turns = TREMOR_HERTZ * rng.uniform(0.9, 1.1) * time + rng.uniform()
    trembling = 1.0 + prosody.tremor * np.sin(2 * np.pi * turns)
    stress = 1.0 + 0.35 * (accents - 0.4) - 0.2 * progress
    return Utterance(
        pitch=throat.pitch * 2.0 ** (semitones / 12.0),
        voice=held([phone.voice for phone in phones], 0.020) * stress * trembling,
        hiss=held([phone.hiss for phone in phones], 0.012),
        centre=np.array([phone.centre for phone in phones])[sounding],
        formants=formants * throat.formants,
        opening=held([phone.opening for phone in phones], 0.06),
    )


def voice(
    utterance: Utterance, prosody: Prosody, throat: Throat, seconds: float, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Synthesise the waveform (samples,) of an utterance at `SAMPLE_RATE`, in [-1, 1]; see `utter`."""
    samples = round(seconds * SAMPLE_RATE)
    rows = len(utterance.pitch)
    length = (rows - 1) * HOP + WINDOW
    pulses = _pulses(utterance.pitch, prosody, length, rng).astype(np.float32)
    noise = rng.standard_normal(length, dtype=np.float32)

    # single precision from here on: half the time, and 16 bits are kept in the end
    frequency = np.fft.rfftfreq(WINDOW, 1.0 / SAMPLE_RATE).astype(np.float32)
    octaves = np.log2(np.maximum(frequency, TILT_FROM) / TILT_FROM)
    slope = 10.0 ** ((PLAIN_TILT + prosody.tilt + throat.tilt) / 20.0 * octaves)
    hum = np.minimum(frequency / 60.0, 1.0) ** 2  # lips radiate no rumble
    response = _resonances(utterance.formants.astype(np.float32), throat.formants, frequency)
    breath = 0.5 * (prosody.breath + throat.breath) * np.sqrt(slope)  # breath is brighter than voice
    centre = utterance.centre[:, None].astype(np.float32)
    band = np.exp(-0.5 * np.square((frequency - centre) / (0.3 * centre)))
    hiss = utterance.hiss[:, None].astype(np.float32) * band
    spoken = utterance.voice[:, None].astype(np.float32) * response * hum
    spectra = _spectra(pulses, rows) * spoken * slope
    breathed = spoken * (0.12 * breath) + 0.15 * 10.0 ** (prosody.tilt / 40.0) * hiss
    spectra += _spectra(noise, rows) * breathed
    sound = _overlap(spectra)[WINDOW // 2 :][:samples]  # a row's window is centred on its moment

    level = 10.0 ** ((PLAIN_LEVEL_DB + prosody.level + throat.level) / 20.0)
    loud = np.repeat(utterance.voice > 0.3, HOP)[:samples]
    sound *= level / np.sqrt(np.mean(sound[: len(loud)][loud] ** 2))
    sound *= min(1.0, LOUDEST / np.abs(sound).max())
    room = 10.0 ** (ROOM_LEVEL_DB / 20.0)
    return sound + np.float32(room) * rng.standard_normal(samples, dtype=np.float32)


def opening_at(utterance: Utterance, fps: float, frames: int) -> Array:
    """Opening of the mouth at each video frame (frames,), 0 to 1."""
    time = np.arange(len(utterance.opening)) * HOP / SAMPLE_RATE
    return np.interp(np.arange(frames) / fps, time, utterance.opening)


def _pulses(pitch: Array, prosody: Prosody, length: int, rng: np.random.Generator) -> Array:
    """Pulses (length,), one a closing of the glottis: jitter moves them, roughness weakens every second."""
    steps = np.interp(np.arange(length) / HOP, np.arange(len(pitch)), pitch) / SAMPLE_RATE
    phase = np.cumsum(steps)
    count = int(phase[-1])
    moments = np.interp(np.arange(1, count + 1), phase, np.arange(length, dtype=float))
    period = 1.0 / steps[moments.astype(int)]
    moments = np.clip(moments + prosody.jitter * period * rng.standard_normal(count), 0, length - 2)
    strength = 1.0 + 2.0 * prosody.jitter * rng.standard_normal(count)
    strength[::2] *= 1.0 - prosody.rough
    strength *= np.sqrt(period)  # so that a high voice is not a louder one
    # a pulse between two samples is divided between them
    whole = moments.astype(int)
    part = moments - whole
    before, behind = strength * (1 - part), strength * part
    return np.asarray(np.bincount(whole, before, length) + np.bincount(whole + 1, behind, length), float)


def _resonances(formants: Single, scale: float, frequency: Single) -> Single:
    """Response (rows, bins) of the throat: a peak of `PEAK` at each formant over a flat ground of 1."""
    peaks = [(np.array([[centre * scale]], dtype=np.float32), width) for centre, width in UPPER_FORMANTS]
    peaks += [(formants[:, column, None], width) for column, width in enumerate(BANDWIDTHS)]
    response = np.ones((1, len(frequency)), dtype=np.float32)
    for centre, width in peaks:
        away = np.square((frequency - centre) * (2.0 / width))
        response = response * np.sqrt((away + PEAK**2) / (away + 1.0))
    return response


def _spectra(signal: Single, rows: int) -> NDArray[np.complex64]:
    """Short spectra (rows, bins) of a signal."""
    windows = np.lib.stride_tricks.sliding_window_view(signal, WINDOW)[::HOP][:rows]
    return np.fft.rfft(windows * ROOT_HANN, axis=1).astype(np.complex64, copy=False)


def _overlap(spectra: NDArray[np.complex64]) -> Single:
    """Reconstruct the signal of short spectra, by overlapping and adding."""
    rows, parts = len(spectra), WINDOW // HOP
    blocks = (np.fft.irfft(spectra, WINDOW, axis=1) * ROOT_HANN).reshape(rows, parts, HOP)
    signal = np.zeros((rows + parts - 1, HOP), dtype=np.float32)
    for part in range(parts):
        signal[part : part + rows] += blocks[:, part]
    return signal.ravel() * np.float32(2.0 * HOP / WINDOW)


def _smooth(values: Array, seconds: float) -> Array:
    """Running mean over so many seconds of rows."""
    width = max(1, round(seconds * SAMPLE_RATE / HOP))
    return np.convolve(values, np.ones(width) / width, mode="same")
