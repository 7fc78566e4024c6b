"""Sound -> mel-frequency cepstral coefficients, as librosa computes them with its defaults."""

from functools import cache

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from cfnsr.media.errors import MediaError

SAMPLE_RATE = 44_100  # Hz
SKIP = 0.5  # seconds left out at the start: the actors wait before they speak
KEEP = 2.45  # seconds kept
N_FFT = 2048  # samples, 46 ms
HOP = 512  # samples, 12 ms
N_MELS = 128
N_MFCC = 13
N_SAMPLES = round(KEEP * SAMPLE_RATE)  # 108,045
STEPS = 1 + N_SAMPLES // HOP  # 212
LEAST_SOUND = 0.5  # seconds of real sound below which a take says too little

AT_ONCE = 256  # frames that are transformed together, in the same memory
ALONE = 2**19  # products of a matrix, from which on BLAS wakes other threads, that wait busily afterwards
LOWEST_POWER = 1e-10
DYNAMIC_RANGE = 80.0  # dB below the loudest place of the take


def mfcc(
    waveform: NDArray[np.floating], sample_rate: int = SAMPLE_RATE, n_mfcc: int = N_MFCC
) -> NDArray[np.float32]:
    """Compute mel-frequency cepstral coefficients (n_mfcc, 1 + N // 512) of a waveform (N,).

    The power spectrum of centred, zero-padded frames under a periodic Hann window, in 128 mel bands
    of Slaney's scale, in decibels no more than 80 below the loudest, through an orthonormal DCT-II:
    the defaults of `librosa.feature.mfcc` (McFee et al., librosa, SciPy 2015), without its import.

    >>> mfcc(np.zeros(N_SAMPLES)).shape
    (13, 212)
    """
    return np.asarray(_cosines(n_mfcc) @ mel_decibels(waveform, HOP, sample_rate))


def resample(
    waveform: NDArray[np.float32], sample_rate: int, target: int = SAMPLE_RATE
) -> NDArray[np.float32]:
    """Resample a waveform (N,) to another sample rate in Hz, by soxr at its high quality.

    >>> resample(np.zeros(48_000, np.float32), 48_000).shape
    (44100,)
    """
    if sample_rate == target or not len(waveform):
        return waveform
    import soxr

    return np.asarray(soxr.resample(waveform, sample_rate, target, quality="HQ"))


def window(
    waveform: NDArray[np.float32],
    sample_rate: int = SAMPLE_RATE,
    skip: float = SKIP,
    keep: float = KEEP,
) -> tuple[NDArray[np.float32], float]:
    """Cut the `keep` seconds after `skip`, with zeros at the end where the sound is shorter.

    Returns:
        The window, of round(keep * sample_rate) samples, and how many seconds of it are real sound.

    Raises:
        MediaError: less than half a second of real sound is left ("too short").

    >>> samples, real = window(np.ones(2 * 44_100, np.float32))
    >>> len(samples), real
    (108045, 1.5)
    """
    first, length = round(skip * sample_rate), round(keep * sample_rate)
    kept = waveform[first : first + length]
    real = len(kept) / sample_rate
    if real < min(LEAST_SOUND, keep):
        least = f"at least {skip + LEAST_SOUND:g} s, because the first {skip:g} s are left out"
        given = f"{len(waveform) / sample_rate:.2f} s of sound"
        raise MediaError("too short", f"{given}: expected {least}; give a longer recording")
    return np.pad(kept, (0, length - len(kept))), real


def mel_decibels(
    waveform: NDArray[np.floating],
    hop: int,
    sample_rate: int,
    n_fft: int = N_FFT,
    lowest: float = 0.0,
    highest: float | None = None,
) -> NDArray[np.float32]:
    """Compute 128 mel bands (128, 1 + N // hop) of a waveform (N,) in decibels.

    None lies more than 80 below the loudest. All is in float32, as in librosa.

    Args:
        waveform: samples; half a frame of zeros stands before and behind them.
        hop: samples from frame to frame.
        sample_rate, n_fft, lowest, highest: see `mel_filters`.
    """
    import cv2  # whose transforms and logarithms take a third of the time of NumPy's

    padded = np.zeros(len(waveform) + n_fft, np.float32)
    padded[n_fft // 2 : n_fft // 2 + len(waveform)] = waveform
    frames = sliding_window_view(padded, n_fft)[::hop]
    bands = np.empty((len(frames), N_MELS), np.float32)
    memory = np.empty((min(AT_ONCE, len(frames)), n_fft), np.float32)
    for first in range(0, len(frames), AT_ONCE):
        some = frames[first : first + AT_ONCE]
        parts = np.multiply(some, _hann(n_fft), out=memory[: len(some)])
        cv2.dft(parts, dst=parts, flags=cv2.DFT_ROWS)
        np.square(parts, out=parts)
        for near, heard, weights in _groups(sample_rate, n_fft, lowest, highest):
            np.matmul(parts[:, heard], weights, out=bands[first : first + AT_ONCE, near])
    decibels = np.float32(10 / np.log(10)) * cv2.log(np.maximum(bands, np.float32(LOWEST_POWER)))
    return np.asarray(np.maximum(decibels, decibels.max() - np.float32(DYNAMIC_RANGE)).T)


@cache
def _groups(
    sample_rate: int, n_fft: int, lowest: float, highest: float | None
) -> list[tuple[slice, slice, NDArray[np.float32]]]:
    """Neighbouring filters with the few numbers of a transformed frame that they hear.

    A frame becomes the real part of the lowest frequency, both parts of each of the next ones, and the real
    part of the highest; a power is the sum of two squares.
    """
    filters = np.repeat(mel_filters(sample_rate, N_MELS, n_fft, lowest, highest), 2, axis=1)[:, 1:-1]

    def heard(near: slice) -> slice:
        places = np.flatnonzero(filters[near].any(axis=0))
        return slice(places[0], places[-1] + 1) if len(places) else slice(0)

    groups, first = [], 0
    for stop in range(1, N_MELS + 1):
        more = slice(first, stop + 1)
        if stop == N_MELS or AT_ONCE * filters[more, heard(more)].size >= ALONE:
            near, first = slice(first, stop), stop
            groups.append((near, heard(near), np.ascontiguousarray(filters[near, heard(near)].T)))
    return groups


@cache
def mel_filters(
    sample_rate: int = SAMPLE_RATE,
    n_mels: int = N_MELS,
    n_fft: int = N_FFT,
    lowest: float = 0.0,
    highest: float | None = None,
) -> NDArray[np.float32]:
    """Triangular filters (n_mels, 1 + n_fft // 2) of equal area, evenly spaced on Slaney's mel scale.

    Args:
        sample_rate: of the waveform, in Hz.
        n_mels: number of filters.
        n_fft: samples of a frame; even.
        lowest: begin of the first filter, in Hz.
        highest: end of the last one, in Hz; Nyquist's frequency if not given.

    Slaney, Auditory Toolbox, Interval Research technical report 1998-010: linear to 1 kHz
    (200/3 Hz a mel), logarithmic above (27 mels for a factor of 6.4).
    """
    corner, slope, step = 1000.0, 200.0 / 3.0, np.log(6.4) / 27.0

    def mel(hertz: float) -> float:
        return float(hertz / slope if hertz < corner else corner / slope + np.log(hertz / corner) / step)

    mels = np.linspace(mel(lowest), mel(sample_rate / 2 if highest is None else highest), n_mels + 2)
    edges = np.where(mels * slope < corner, mels * slope, corner * np.exp(step * (mels - corner / slope)))
    bins = np.fft.rfftfreq(n_fft, 1 / sample_rate)
    rising = (bins - edges[:-2, None]) / np.diff(edges)[:-1, None]
    falling = (edges[2:, None] - bins) / np.diff(edges)[1:, None]
    areas = (edges[2:] - edges[:-2])[:, None] / 2
    filters = np.asarray(np.maximum(0.0, np.minimum(rising, falling)) / areas, np.float32)
    filters.flags.writeable = False
    return filters


@cache
def _hann(n_fft: int) -> NDArray[np.float32]:
    return np.asarray(0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_fft) / n_fft), np.float32)


@cache
def _cosines(n_mfcc: int) -> NDArray[np.float32]:
    """The first rows (n_mfcc, 128) of the orthonormal DCT-II."""
    angles = np.pi / N_MELS * np.outer(np.arange(n_mfcc), np.arange(N_MELS) + 0.5)
    rows = np.cos(angles) * np.sqrt(2 / N_MELS)
    rows[0] /= np.sqrt(2)
    return np.asarray(rows, np.float32)
