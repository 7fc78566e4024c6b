"""Spectra, MFCCs and log-mel spectrograms as layers, beside those that training clips are made with."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cfnsr.export.fourier import Fourier
from cfnsr.export.sound import LogMel, Mfcc
from cfnsr.media.decode import decode
from cfnsr.media.log_mel import log_mel
from cfnsr.media.mfcc import N_SAMPLES, mfcc, resample, window

TOLERANCE = 0.005  # of an MFCC, whose values reach 1000
DECIBELS = 0.005
BOTH = [(Mfcc, mfcc, TOLERANCE), (LogMel, log_mel, DECIBELS)]


@settings(max_examples=30, deadline=None)
@given(values=st.integers(1, 400), seed=st.integers(0, 2**31), share=st.floats(0.01, 1))
def test_a_spectrum_is_numpys(values: int, seed: int, share: float) -> None:
    kept = max(1, int(share * values))
    wave = np.random.default_rng(seed).standard_normal((2, 3, values))
    real, imaginary = Fourier(values, kept)(torch.from_numpy(wave).float())
    assert kept <= real.shape[-1] <= values
    expected = np.fft.fft(wave)[..., : real.shape[-1]]
    np.testing.assert_allclose(real + 1j * imaginary, expected, atol=2e-4)


def test_the_windowed_spectrum_of_a_frame() -> None:
    wave = np.random.default_rng(0).standard_normal(2048)
    hann = np.hanning(2049)[:-1]
    real, imaginary = Fourier(2048, 1025, hann)(torch.from_numpy(wave).float())
    np.testing.assert_allclose((real + 1j * imaginary)[:1025], np.fft.rfft(wave * hann), atol=1e-4)


@pytest.mark.parametrize(("layer", "plain", "tolerance"), BOTH)
@pytest.mark.parametrize("samples", [44_100, 30_871, 4096])
def test_made_up_sounds(layer: type, plain: object, tolerance: float, samples: int) -> None:
    """Noise, a tone that begins late, a click and silence, in one batch: none hears the others."""
    rng = np.random.default_rng(samples)
    sounds = np.zeros((4, samples), np.float32)
    sounds[0] = 0.3 * rng.standard_normal(samples)
    sounds[1, samples // 2 :] = 0.01 * np.sin(np.arange(samples - samples // 2) / 7)
    sounds[2, samples // 3] = 1
    found = layer()(torch.from_numpy(sounds)).numpy()
    expected = np.stack([plain(sound) for sound in sounds])  # type: ignore[operator]
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, atol=tolerance)


@pytest.mark.parametrize(("layer", "plain", "tolerance"), BOTH)
def test_real_sounds(shared: Path, layer: type, plain: object, tolerance: float) -> None:
    """The six clips, and one recording of each sixth actor."""
    files = [
        *sorted((shared / "clips").rglob("*.*")),
        *sorted((shared / "ravdess/audio").rglob("*.flac"))[::360],
    ]
    assert len(files) >= 6
    features = layer()
    for file in files:
        found = decode(file, video=False, threads=1)
        assert found.waveform is not None
        sound = window(resample(found.waveform, found.sample_rate))[0]
        assert len(sound) == N_SAMPLES
        given = features(torch.from_numpy(sound.astype(np.float32))[None])[0]
        np.testing.assert_allclose(given, plain(sound), atol=tolerance, err_msg=file.name)  # type: ignore[operator]
