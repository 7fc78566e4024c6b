"""The log-mel spectrogram against librosa and against physics."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cfnsr.media.decode import decode
from cfnsr.media.log_mel import HIGHEST, HOP, LOWEST, N_FFT, STEPS, log_mel
from cfnsr.media.mfcc import N_SAMPLES, SAMPLE_RATE, mel_filters, resample, window

TOLERANCE = 0.01  # dB


def by_librosa(sound: np.ndarray, rate: int = SAMPLE_RATE) -> np.ndarray:
    import librosa

    settings = {"n_fft": 1380, "hop_length": 345, "n_mels": 128, "fmin": 50, "fmax": min(14_000, rate / 2)}
    power = librosa.feature.melspectrogram(y=np.asarray(sound, np.float64), sr=rate, **settings)
    return np.asarray(librosa.power_to_db(power, top_db=80))


@settings(max_examples=25, deadline=None)
@given(
    length=st.integers(1_380, 110_000),
    rate=st.sampled_from([22_050, 44_100, 48_000]),
    level=st.sampled_from([0.0, 1e-7, 1e-3, 1.0]),
    seed=st.integers(0, 2**31),
)
@pytest.mark.long
def test_any_sound_agrees_with_librosa(length: int, rate: int, level: float, seed: int) -> None:
    sound = level * np.random.default_rng(seed).uniform(-1, 1, length)
    ours = log_mel(sound, rate)
    assert ours.shape == (128, 1 + length // HOP) and ours.dtype == np.float32
    np.testing.assert_allclose(ours, by_librosa(sound, rate), atol=TOLERANCE)


def test_real_recordings_agree_with_librosa(shared: Path) -> None:
    takes = sorted((shared / "ravdess/audio").glob("Actor_*/*.flac"))[::300]
    assert len(takes) == 5
    for take in takes:
        found = decode(take, video=False, threads=1)
        assert found.waveform is not None
        kept, _ = window(resample(found.waveform, found.sample_rate))
        ours = log_mel(kept)
        assert ours.shape == (128, STEPS)
        np.testing.assert_allclose(ours, by_librosa(kept), atol=TOLERANCE, err_msg=take.stem)


def slaney(hertz: float) -> float:
    """Slaney's mel, by its definition: 15 mels to 1 kHz, then 27 for each factor of 6.4."""
    return hertz * 3 / 200 if hertz < 1000 else 15 + 27 * np.log(hertz / 1000) / np.log(6.4)


@pytest.mark.parametrize("hertz", [120, 440, 1_000, 3_000, 9_000, 13_000])
def test_a_tone_lands_in_its_band(hertz: int) -> None:
    tone = 0.5 * np.sin(2 * np.pi * hertz * np.arange(N_SAMPLES) / SAMPLE_RATE)
    middle = log_mel(tone)[:, 100:200].mean(axis=1)
    low, high = slaney(LOWEST), slaney(HIGHEST)
    expected = (slaney(hertz) - low) / (high - low) * 129 - 1  # band i is centred on mel step i + 1
    assert abs(int(middle.argmax()) - expected) < 1.5  # a spectral line is as wide as two low bands
    far = np.abs(np.arange(128) - expected) > 12
    assert middle.max() - middle[far].max() > 35


def test_silence_has_decibels_in_314_columns() -> None:
    silent = log_mel(np.zeros(N_SAMPLES))
    assert silent.shape == (128, 314) == (128, STEPS)
    np.testing.assert_allclose(silent, -100, atol=1e-4)
    assert abs(SAMPLE_RATE / HOP - 128) < 0.5  # the paper's columns a second


def test_no_band_is_empty() -> None:
    """Narrow low bands could fall between two spectral lines."""
    assert (mel_filters(SAMPLE_RATE, 128, N_FFT, LOWEST, HIGHEST).max(axis=1) > 0).all()
