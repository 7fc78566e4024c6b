import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cfnsr.media.decode import decode
from cfnsr.media.errors import MediaError
from cfnsr.media.mfcc import HOP, N_SAMPLES, SAMPLE_RATE, STEPS, mel_filters, mfcc, resample, window

TOLERANCE = 0.01
ODD_TAKES = {
    "03-01-02-01-02-02-13",  # 2.94 s
    "03-01-02-01-01-02-01",  # and five in stereo
    "03-01-08-01-02-02-01",
    "03-01-02-01-02-02-05",
    "03-01-03-01-02-01-20",
    "03-01-06-01-01-02-20",
}


def by_librosa(path: Path) -> np.ndarray:
    """The same recording through libsndfile and librosa."""
    import librosa
    import soundfile

    sound, rate = soundfile.read(path, always_2d=True)
    sound = librosa.resample(sound.mean(axis=1), orig_sr=rate, target_sr=44_100, res_type="soxr_hq")
    sound = sound[round(0.5 * 44_100) :][: round(2.45 * 44_100)]
    sound = np.pad(sound, (0, round(2.45 * 44_100) - len(sound)))
    coefficients: np.ndarray = librosa.feature.mfcc(y=sound, sr=44_100, n_mfcc=13)
    return coefficients


def by_us(path: Path) -> np.ndarray:
    found = decode(path, video=False, threads=1)
    assert found.waveform is not None
    return mfcc(window(resample(found.waveform, found.sample_rate))[0])


def test_real_recordings_agree_with_librosa(shared: Path) -> None:
    """One of each actor's takes and the odd ones; all of them where CFNSR_ALL_RECORDINGS is set."""
    takes = sorted((shared / "ravdess/audio").glob("Actor_*/*.flac"))
    assert len(takes) == 1440
    step = 1 if os.environ.get("CFNSR_ALL_RECORDINGS") else 61
    for take in {*takes[::step], *(take for take in takes if take.stem in ODD_TAKES)}:
        ours = by_us(take)
        assert ours.shape == (13, 212)
        np.testing.assert_allclose(ours, by_librosa(take), atol=TOLERANCE, rtol=0, err_msg=take.stem)


@pytest.mark.filterwarnings("ignore:n_fft=2048 is too large")
@settings(max_examples=25, deadline=None)
@given(
    length=st.integers(1, 30_000),
    rate=st.sampled_from([8_000, 16_000, 22_050, 44_100, 48_000]),
    level=st.sampled_from([0.0, 1e-7, 1e-3, 1.0]),
    coefficients=st.integers(1, 40),
    seed=st.integers(0, 2**31),
)
def test_any_sound_agrees_with_librosa(
    length: int, rate: int, level: float, coefficients: int, seed: int
) -> None:
    import librosa

    sound = level * np.random.default_rng(seed).uniform(-1, 1, length)
    ours = mfcc(sound, rate, coefficients)
    assert ours.shape == (coefficients, 1 + length // HOP) and ours.dtype == np.float32
    np.testing.assert_allclose(
        ours, librosa.feature.mfcc(y=sound, sr=rate, n_mfcc=coefficients), atol=TOLERANCE
    )


def test_mel_filters_are_slaneys() -> None:
    import librosa

    for rate in (1_500, 16_000, 44_100):
        np.testing.assert_allclose(mel_filters(rate), librosa.filters.mel(sr=rate, n_fft=2048), atol=1e-7)


def test_a_tone_keeps_its_pitch_when_resampled() -> None:
    rate = 48_000
    tone = np.sin(2 * np.pi * 1_000 * np.arange(rate) / rate).astype(np.float32)
    sound = resample(tone, rate)
    assert len(sound) == SAMPLE_RATE and sound.dtype == np.float32
    assert np.abs(np.fft.rfft(sound)).argmax() == 1_000
    assert resample(tone, rate, rate) is tone


def test_window_skips_keeps_and_pads() -> None:
    sound = np.arange(4 * SAMPLE_RATE, dtype=np.float32)
    kept, real = window(sound)
    assert len(kept) == N_SAMPLES == 108_045 and real == pytest.approx(2.45)
    assert kept[0] == 22_050 and kept[-1] == 22_050 + 108_044
    assert mfcc(kept).shape == (13, STEPS) == (13, 212)

    kept, real = window(sound[: 2 * SAMPLE_RATE])
    assert len(kept) == N_SAMPLES and real == pytest.approx(1.5)
    assert kept[round(1.5 * SAMPLE_RATE) - 1] > 0 and not kept[round(1.5 * SAMPLE_RATE) :].any()

    kept, real = window(sound, 16_000, skip=0, keep=1)
    assert kept.tolist() == list(range(16_000)) and real == 1


@pytest.mark.parametrize("seconds", [0.0, 0.3, 0.5, 0.99])
def test_too_short(seconds: float) -> None:
    with pytest.raises(MediaError, match=f"{seconds:.2f} s of sound") as caught:
        window(np.zeros(round(seconds * SAMPLE_RATE), np.float32))
    assert caught.value.reason == "too short"


def test_import_is_light() -> None:
    code = "import cfnsr.media.mfcc, sys, json; print(json.dumps(sorted(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    loaded = set(json.loads(out.stdout))
    assert not loaded & {"librosa", "scipy", "soxr", "torch", "av", "cv2"}
