"""Features of a waveform as layers: `cfnsr.media.mfcc` and `log_mel` inside a graph."""

import math

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn

from cfnsr.export.fourier import Fourier, constant
from cfnsr.media import log_mel, mfcc


class Decibels(nn.Module):
    """Mel bands of a waveform in decibels, no more than 80 below the clip's loudest: `mfcc.mel_decibels`.

    In float32, the bands differ from those in float64 by less than 0.002 dB.

    Args:
        filters: mel filters (n_mels, 1 + n_fft // 2).
        hop: samples from frame to frame, a half, a quarter, ... of n_fft.
    """

    def __init__(self, filters: NDArray[np.float32], hop: int) -> None:
        super().__init__()
        bins = filters.shape[1]
        self.n_fft, self.hop = 2 * (bins - 1), hop
        hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(self.n_fft) / self.n_fft)
        self.fourier = Fourier(self.n_fft, bins, hann)
        self.filters = constant(np.pad(filters.T, ((0, self.fourier.kept - bins), (0, 0))))

    def forward(self, waveform: Float[Tensor, "B N"]) -> Float[Tensor, "B S n_mels"]:
        samples, hops = waveform.shape[1], self.n_fft // self.hop  # of a frame
        steps = 1 + samples // self.hop
        # A frame is put together of hops that follow each other: no gathering of single samples.
        before = self.n_fft // 2
        behind = (steps + hops - 1) * self.hop - samples - before
        silence = waveform.new_zeros(waveform.shape[0], 1)
        padded = torch.cat([silence.expand(-1, before), waveform, silence.expand(-1, behind)], dim=1)
        each = padded.reshape(-1, steps + hops - 1, self.hop)
        frames = torch.cat([each[:, start : start + steps] for start in range(hops)], dim=2)
        real, imaginary = self.fourier(frames)
        power = (real * real + imaginary * imaginary) @ self.filters
        decibels = 10 / math.log(10) * power.clamp(min=mfcc.LOWEST_POWER).log()
        loudest = decibels.amax(dim=(1, 2), keepdim=True)
        return torch.maximum(decibels, loudest + -mfcc.DYNAMIC_RANGE)


class Mfcc(nn.Module):
    """Mel-frequency cepstral coefficients of a waveform at 44.1 kHz: `mfcc.mfcc`, to 0.001.

    >>> Mfcc()(torch.zeros(2, mfcc.N_SAMPLES)).shape
    torch.Size([2, 13, 212])
    """

    def __init__(self) -> None:
        super().__init__()
        self.decibels = Decibels(mfcc.mel_filters(), mfcc.HOP)
        angles = np.pi / mfcc.N_MELS * np.outer(np.arange(mfcc.N_MELS) + 0.5, np.arange(mfcc.N_MFCC))
        cosines = np.cos(angles) * np.sqrt(2 / mfcc.N_MELS)  # the orthonormal DCT-II
        cosines[:, 0] /= np.sqrt(2)
        self.cosines = constant(cosines)
        self.of_level = constant(math.sqrt(mfcc.N_MELS) * np.eye(1, mfcc.N_MFCC)[0])

    def forward(self, waveform: Float[Tensor, "B N"]) -> Float[Tensor, "B 13 S"]:
        decibels = self.decibels(waveform)
        # What all bands have in common goes into the first coefficient alone. Added up with the rest in
        # float32, it would cost a digit of every one. It is taken away as a sum with its negative, made by
        # a constant other than -1: OpenVINO would rewrite a difference, or a product with -1, and forget
        # that it is to be computed in float32.
        negative = decibels.sum(dim=(1, 2), keepdim=True) * (-1 / decibels[0].numel())
        cepstrum: Tensor = (decibels + negative) @ self.cosines + negative * -self.of_level
        return cepstrum.transpose(1, 2)


class LogMel(nn.Module):
    """Log-mel spectrogram of a waveform at 44.1 kHz: `log_mel.log_mel`, to 0.002 dB.

    >>> LogMel()(torch.zeros(2, mfcc.N_SAMPLES)).shape
    torch.Size([2, 128, 314])
    """

    def __init__(self) -> None:
        super().__init__()
        limits = log_mel.LOWEST, log_mel.HIGHEST
        filters = mfcc.mel_filters(mfcc.SAMPLE_RATE, mfcc.N_MELS, log_mel.N_FFT, *limits)
        self.decibels = Decibels(filters, log_mel.HOP)

    def forward(self, waveform: Float[Tensor, "B N"]) -> Float[Tensor, "B 128 S"]:
        decibels: Tensor = self.decibels(waveform)
        return decibels.transpose(1, 2)
