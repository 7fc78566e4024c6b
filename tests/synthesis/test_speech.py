"""The voice: pitch, level, tempo and timbre are what the prosody asks for."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from cfnsr.synthesis.acting import VOICES, Prosody
from cfnsr.synthesis.cast import cast
from cfnsr.synthesis.speech import PLAIN_LEVEL_DB, SAMPLE_RATE, utter, voice

SECONDS, START = 3.2, 0.6
Samples = NDArray[np.float32]


def say(prosody: Prosody, actor: int, statement: int = 1, seed: int = 0) -> Samples:
    throat = cast(actor, seed=0).throat
    rng = np.random.default_rng(seed)
    utterance = utter(statement, prosody, throat, SECONDS, START, rng)
    return voice(utterance, prosody, throat, SECONDS, rng)


def decibels(samples: Samples) -> float:
    return float(20 * np.log10(np.sqrt(np.mean(np.square(samples, dtype=np.float64)))))


def median_pitch(samples: Samples) -> float:
    """Hz, from the first high peak of the autocorrelation of each loud 40 ms."""
    frames = samples[: len(samples) // 1920 * 1920].reshape(-1, 1920)
    loud = frames[np.sqrt((frames**2).mean(1)) > 0.5 * np.sqrt((frames**2).mean(1)).max()]
    spectrum = np.abs(np.fft.rfft(loud * np.hanning(1920), 4096)) ** 2
    correlation = np.fft.irfft(spectrum)[:, :1920]
    window = np.fft.irfft(np.abs(np.fft.rfft(np.hanning(1920), 4096)) ** 2)[:1920]
    low, high = SAMPLE_RATE // 450, SAMPLE_RATE // 70
    alike = correlation[:, low:high] / window[low:high]
    first = (alike > 0.85 * alike.max(axis=1, keepdims=True)).argmax(axis=1)
    lags = [low + start + row[start : start + 60].argmax() for row, start in zip(alike, first, strict=True)]
    return float(np.median(SAMPLE_RATE / np.array(lags)))


@pytest.mark.parametrize("actor", [1, 2])
@pytest.mark.parametrize("semitones", [0.0, 5.0])
def test_pitch_is_what_was_asked_for(actor: int, semitones: float) -> None:
    prosody = Prosody(pitch=semitones, accent=0.0, ending=0.0)
    expected = cast(actor, seed=0).throat.pitch * 2 ** (semitones / 12)
    measured = median_pitch(say(prosody, actor))
    assert abs(12 * np.log2(measured / expected)) < 1.0


@pytest.mark.parametrize("emotion", VOICES)
@pytest.mark.parametrize("actor", [1, 2])
def test_silence_then_speech_that_does_not_clip(emotion: str, actor: int) -> None:
    samples = say(VOICES[emotion], actor, statement=2)
    assert len(samples) == round(SECONDS * SAMPLE_RATE)
    assert samples.dtype == np.float32
    assert decibels(samples[: SAMPLE_RATE // 2]) < -70, "the first half second is the room alone"
    assert decibels(samples[: SAMPLE_RATE // 2]) > -85, "and a room is never quite silent"
    assert np.abs(samples).max() < 0.95
    spoken = decibels(samples[round(0.8 * SAMPLE_RATE) : round(1.8 * SAMPLE_RATE)])
    assert abs(spoken - PLAIN_LEVEL_DB - VOICES[emotion].level) < 4.5
    assert decibels(samples[-SAMPLE_RATE // 10 :]) < -65, "it ends before the take does"


def test_tempo_shortens_speech() -> None:
    def spoken(tempo: float) -> int:
        level = np.abs(say(Prosody(tempo=tempo), 1)).reshape(-1, 480).max(axis=1)
        return int(np.ptp(np.flatnonzero(level > 0.02 * level.max())))

    assert spoken(0.8) / spoken(1.2) == pytest.approx(1.5, rel=0.08)


def test_tilt_and_breath_brighten_the_spectrum() -> None:
    def brightness(tilt: float) -> float:
        power = np.abs(np.fft.rfft(say(Prosody(tilt=tilt), 1))) ** 2
        hertz = np.fft.rfftfreq(round(SECONDS * SAMPLE_RATE), 1 / SAMPLE_RATE)
        return float(10 * np.log10(power[(hertz > 2000) & (hertz < 5000)].sum() / power[hertz < 1000].sum()))

    dark, plain, bright = (brightness(tilt) for tilt in (-4.0, 0.0, 4.0))
    assert bright > plain + 6 > plain > dark + 6


def test_roughness_halves_the_pitch_and_tremor_shakes_the_level() -> None:
    quiet = Prosody(accent=0.0, ending=0.0)
    assert median_pitch(say(replace(quiet, rough=0.8), 2)) < 0.6 * median_pitch(say(quiet, 2))

    def shaking(tremor: float) -> float:
        samples = say(replace(quiet, tremor=tremor, tempo=0.7), 1)[SAMPLE_RATE * 4 // 5 : SAMPLE_RATE * 2]
        envelope = np.sqrt(np.square(samples[: len(samples) // 480 * 480]).reshape(-1, 480).mean(axis=1))
        spectrum = np.abs(np.fft.rfft(envelope - envelope.mean()))
        hertz = np.fft.rfftfreq(len(envelope), 0.01)
        return float(spectrum[(hertz > 5.5) & (hertz < 8.5)].max() / envelope.sum())

    assert shaking(0.8) > 2 * shaking(0.0)


def test_statements_differ_and_chance_is_the_generators() -> None:
    first = say(VOICES["neutral"], 1)
    np.testing.assert_array_equal(say(VOICES["neutral"], 1), first)
    assert not np.array_equal(say(VOICES["neutral"], 1, seed=1), first)
    spectra = [np.log(np.abs(np.fft.rfft(say(VOICES["neutral"], 1, statement=s)))) for s in (1, 2)]
    assert np.corrcoef(spectra[0][2000:20000], spectra[1][2000:20000])[0, 1] < 0.9
