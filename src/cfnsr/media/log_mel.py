"""Sound -> log-mel spectrogram, the input of ERANNs."""

import numpy as np
from numpy.typing import NDArray

from cfnsr.media.mfcc import N_SAMPLES, SAMPLE_RATE, mel_decibels

HOP = 345  # samples, 7.8 ms: 128 columns a second at 44.1 kHz
N_FFT = 4 * HOP  # 1380 samples, 31 ms
LOWEST, HIGHEST = 50.0, 14_000.0  # Hz
STEPS = 1 + N_SAMPLES // HOP  # 314


def log_mel(waveform: NDArray[np.floating], sample_rate: int = SAMPLE_RATE) -> NDArray[np.float32]:
    """Compute the log-mel spectrogram (128, 1 + N // 345) of a waveform (N,), in decibels.

    The power spectrum of centred, zero-padded frames under a periodic Hann window, in 128 mel bands of
    Slaney's scale from 50 Hz to 14 kHz. 0 dB is a power of 1; values lie between -100 and about 40, and
    none more than 80 below the loudest of the take. Nothing is taken from other takes: the network
    normalises the bands by its own first layer, which learns from the training actors.

    Source: for ERANNs (Verbitskiy, Berikov & Vyshegorodtsev 2021, arXiv 2106.01621), as far as a public
    re-implementation shows: 128 bands and 128 columns a second. The paper's own text was not at hand. The
    limits in Hz are those of Kong et al. 2020 (PANNs, arXiv 1912.10211), a window of four hops is our choice.

    >>> log_mel(np.zeros(N_SAMPLES)).shape
    (128, 314)
    """
    return mel_decibels(waveform, HOP, sample_rate, N_FFT, LOWEST, min(HIGHEST, sample_rate / 2))
