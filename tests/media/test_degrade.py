"""Each step against physics, and the whole chain by what must hold of any sound."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import signal

from cfnsr.media import degrade as steps
from cfnsr.media.decode import decode
from cfnsr.media.degrade import (
    BANDS,
    CODECS,
    GAIN,
    MARGIN,
    NOISES,
    OCTAVES,
    SIDES,
    TEMPO,
    Codec,
    Draw,
    add_noise,
    change_tempo,
    degrade,
    equalise,
    limit_band,
    reverberate,
    room_response,
    transcode,
)

RATE = 16_000
NONE = Draw(0.0, 0.0, 0.0)


def random(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def sine(hertz: float, seconds: float = 1.0, rate: int = RATE) -> np.ndarray:
    return np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate).astype(np.float32)


def voice(seconds: float = 2.0, rate: int = RATE) -> np.ndarray:
    """Harmonics of a wavering 140 Hz that fall by 6 dB an octave, in syllables with pauses."""
    times = np.arange(round(seconds * rate)) / rate
    phases = 2 * np.pi * 140 * (times + 0.002 * np.sin(2 * np.pi * 3.1 * times))
    sound = sum(np.sin(k * phases + k * k) / k for k in range(1, 22))
    loudness = np.maximum(0, np.sin(2 * np.pi * (1.7 * times + 0.4 * times**2)))
    return np.asarray(0.2 * sound * loudness, np.float32)


def decibels(ratio: float) -> float:
    return float(20 * np.log10(ratio))


def rms(sound: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(sound, dtype=np.float64))))


def pitch(sound: np.ndarray, rate: int = RATE) -> float:
    spectrum = np.abs(np.fft.rfft(sound * np.hanning(len(sound)), 8 * len(sound)))
    return float(spectrum.argmax() * rate / (8 * len(sound)))


def slope(noise: np.ndarray) -> float:
    """Decibels an octave between 200 Hz and 3.2 kHz."""
    power = np.square(np.abs(np.fft.rfft(noise)))
    hertz = np.fft.rfftfreq(len(noise), 1 / RATE)
    octaves = [power[(low <= hertz) & (hertz < 2 * low)].mean() for low in 200 * 2 ** np.arange(4)]
    return float(np.polyfit(range(4), 10 * np.log10(octaves), 1)[0])


@pytest.fixture
def only(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Switch every step off but those given."""

    def switch(**kept: object) -> None:
        off = dict.fromkeys(("TEMPO", "REVERBERATION", "NOISE", "MICROPHONE", "OVERDRIVE"), NONE)
        for name, draw in {**off, "BAND": 0.0, "CODEC": 0.0, "GAIN": Draw(1.0, 0.0, 0.0), **kept}.items():
            monkeypatch.setattr(steps, name, draw)

    return switch


def test_the_seed_alone_decides() -> None:
    sound = voice(1.0)
    before = sound.copy()
    firsts = [degrade(sound, RATE, seed) for seed in range(12)]
    for seed, first in enumerate(firsts):
        np.testing.assert_array_equal(degrade(sound, RATE, seed), first)
    assert len({first.tobytes() for first in firsts}) == 12, "other seeds, other sounds"
    np.testing.assert_array_equal(degrade(sound, RATE, [3, 1]), degrade(sound, RATE, [3, 1]))
    np.testing.assert_array_equal(sound, before)


@settings(max_examples=60, deadline=None)
@given(
    length=st.integers(1, 12_000),
    rate=st.sampled_from([8_000, 16_000, 44_100, 48_000]),
    level=st.sampled_from([1e-5, 1e-2, 1.0, 3.0]),
    kind=st.sampled_from(["noise", "constant", "click", "last", "whistle"]),
    seed=st.integers(0, 2**31),
)
def test_of_any_sound_something_finite_in_range_is_left(
    length: int, rate: int, level: float, kind: str, seed: int
) -> None:
    places = np.arange(length)
    sounds = {
        "noise": random(seed).uniform(-1, 1, length),
        "constant": np.ones(length),
        "click": places == 0,
        "last": places == length - 1,
        "whistle": (-1.0) ** places,  # Nyquist's frequency, of which most steps leave nothing
    }
    sound = np.asarray(level * sounds[kind], np.float32)
    degraded = degrade(sound, rate, seed)
    assert degraded.dtype == np.float32 and degraded.ndim == 1
    assert np.isfinite(degraded).all() and np.abs(degraded).max() <= 1
    assert np.abs(degraded).max() > 0.2 * min(np.abs(sound).max(), 1)
    assert length / TEMPO.high - 1 <= len(degraded) <= length / TEMPO.low + 1


@pytest.mark.parametrize("length", [0, 1, 4000])
def test_silence_stays(length: int) -> None:
    for seed in range(5):
        assert not degrade(np.zeros(length, np.float32), RATE, seed).any()


def test_without_other_steps_a_gain_is_left(only: Callable[..., None]) -> None:
    only(GAIN=GAIN)
    sound = 0.1 * voice()
    gains = []
    for seed in range(40):
        degraded = degrade(sound, RATE, seed)
        gains.append(decibels(np.abs(degraded).max() / np.abs(sound).max()))
        np.testing.assert_allclose(degraded, sound * 10 ** (gains[-1] / 20), atol=1e-6)
    assert -12 <= min(gains) < -8 and 8 < max(gains) <= 12


def test_steps_come_as_often_as_their_chance() -> None:
    draws = [Draw(0.3, 5.0, 6.0).draw(random(seed)) for seed in range(1000)]
    drawn = [draw for draw in draws if draw is not None]
    assert 250 < len(drawn) < 350 and 5 <= min(drawn) < 5.1 and 5.9 < max(drawn) <= 6


def test_overdrive_clips_at_a_fraction_of_the_peak(only: Callable[..., None]) -> None:
    only(OVERDRIVE=Draw(1.0, 0.5, 0.5))
    degraded = degrade(sine(100), RATE, 0)
    np.testing.assert_allclose(degraded, np.clip(2 * sine(100), -1, 1), atol=1e-6)
    only(OVERDRIVE=Draw(1.0, 0.5, 0.5), NOISE=Draw(1.0, -20.0, -20.0), NOISES=("white",))
    noisy = degrade(sine(100), RATE, 0)
    assert 0.01 < np.mean(np.abs(noisy) > 0.999) < 0.1, "half of the peak of noise is two deviations"


def test_codecs_get_sound_that_they_do_not_clip(only: Callable[..., None]) -> None:
    only(CODEC=1.0, CODECS=[codec for codec in CODECS if codec.encoder == "pcm_mulaw"])
    tone = np.asarray(0.9 * sine(440), np.float32)
    assert rms(degrade(tone, RATE, 0) - tone) < 0.05 * rms(tone)


def test_a_step_that_leaves_nothing_is_left_out(
    only: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    only(CODEC=1.0)
    monkeypatch.setattr(steps, "transcode", lambda sound, *_: 1e-7 * sound)
    np.testing.assert_allclose(degrade(sine(440), RATE, 0), sine(440), atol=1e-6)
    monkeypatch.setattr(steps, "transcode", lambda sound, *_: sound[::-1])
    np.testing.assert_allclose(degrade(sine(440), RATE, 0), sine(440)[::-1], atol=1e-6)


@pytest.mark.parametrize("speed", [0.9, 0.97, 1.1])
def test_tempo_changes_the_length_and_keeps_the_pitch(speed: float) -> None:
    changed = change_tempo(sine(440, 2.0), RATE, speed)
    assert len(changed) == round(2 * RATE / speed)
    assert pitch(changed) == pytest.approx(440, abs=1)
    assert rms(changed[-800:]) > 0.5, "the end is there"
    click = np.zeros(2 * RATE, np.float32)
    click[RATE : RATE + 100] = 1
    assert np.abs(change_tempo(click, RATE, speed)).argmax() / RATE == pytest.approx(1 / speed, abs=0.04)


def test_the_first_reflection_is_the_floors() -> None:
    """From a mouth 1 m away, both 1 m high, it has come 2.236 m; the room has 90 m³ and 126 m²."""
    rate = 48_000
    room, mouth, ear = np.array([6.0, 5.0, 3.0]), np.array([2.0, 2.5, 1.0]), np.array([3.0, 2.5, 1.0])
    response = room_response(room, mouth, ear, 0.5, rate, random())
    wall = np.exp(-0.161 * 90 / (2 * 126 * 0.5))  # sqrt(1 - absorption), by Eyring's formula with 0.161 s/m
    reflection = round((np.sqrt(5) - 1) / 343 * rate)
    assert response[0] == 1 and not response[1:reflection].any()
    assert response[reflection] == pytest.approx(wall / np.sqrt(5), abs=1e-3)
    ceiling = round((np.sqrt(17) - 1) / 343 * rate)
    assert not response[reflection + 1 : ceiling].any()
    assert response[ceiling] == pytest.approx(wall / np.sqrt(17), abs=1e-3)
    corner = round((np.sqrt(5**2 + 2**2) - 1) / 343 * rate)  # floor and the near wall: two reflections
    assert response[corner] == pytest.approx(wall**2 / np.sqrt(29), abs=1e-3)


@pytest.mark.parametrize("seconds", [0.15, 0.4, 0.8])
def test_rooms_decay_in_their_reverberation_time(seconds: float) -> None:
    """Schroeder's backward integral falls by 30 dB, from -5 to -35, in half of it."""
    found = []
    for seed in range(20):
        rng = random(seed)
        room = rng.uniform(*SIDES.T)
        mouth, ear = rng.uniform(MARGIN, room - MARGIN, (2, 3))
        response = room_response(room, mouth, ear, seconds, RATE, rng)
        response[0] = 0  # the direct sound is no reverberation
        energy = np.cumsum(np.square(response[::-1]))[::-1]
        level = 10 * np.log10(energy[energy > 0] / energy[0])
        begin, end = (level > -5).sum(), (level > -35).sum()
        found.append(2 * (end - begin) / RATE)
    assert np.mean(found) == pytest.approx(seconds, rel=0.1)
    assert np.std(found) < 0.15 * seconds


def test_late_noise_goes_on_as_loud_as_the_image_sources() -> None:
    """By 10 ms before and after they meet, over 40 places in a room, above 100 Hz.

    Below, image sources add up, because no reflection changes the sign; voices have nothing there.
    """
    filters = signal.butter(2, 100, "highpass", fs=RATE, output="sos")
    before, after = [], []
    for seed in range(40):
        rng = random(seed)
        room = np.array([5.0, 4.1, 3.2])
        mouth, ear = rng.uniform(0.2, room - 0.2, (2, 3))
        response = room_response(room, mouth, ear, 0.5, RATE, rng) / np.linalg.norm(mouth - ear)
        response = signal.sosfilt(filters, response)
        before.append(rms(response[640:800]))
        after.append(rms(response[801:961]))
    expected = 60 * 0.01 / 0.5  # dB that the sound falls by in 10 ms
    assert decibels(rms(np.array(before)) / rms(np.array(after))) == pytest.approx(expected, abs=1)


def test_reverberation_keeps_begin_and_length() -> None:
    click = np.zeros(RATE, np.float32)
    click[4000] = 1
    for seed in range(10):
        heard = reverberate(click, RATE, 0.5, random(seed))
        assert len(heard) == RATE and np.abs(heard[:4000]).max() < 1e-6
        assert heard[4000] == pytest.approx(1, abs=1e-5) and heard[4001:].any()


@pytest.mark.parametrize("kind", NOISES)
@pytest.mark.parametrize("drawn", [0.0, 13.7, 30.0])
def test_noise_has_the_drawn_level(kind: str, drawn: float) -> None:
    sound = voice()
    noise = add_noise(sound, RATE, kind, drawn, random()) - sound
    assert decibels(rms(sound) / rms(noise)) == pytest.approx(drawn, abs=0.1)


def test_noise_has_its_colour() -> None:
    click = np.zeros(4 * RATE, np.float32)
    click[0] = 1
    colours = {
        kind: slope(add_noise(click, RATE, kind, -60, random())) for kind in ("white", "pink", "brown")
    }
    assert colours == pytest.approx({"white": 0, "pink": -3, "brown": -6}, abs=0.3)
    hums = {round(pitch(add_noise(click, RATE, "hum", -60, random(seed)))) for seed in range(8)}
    assert hums == {50, 60}


def test_babble_sounds_like_the_voice() -> None:
    sound = voice()
    babble = add_noise(sound, RATE, "babble", 0, random()) - sound
    assert slope(babble) == pytest.approx(slope(sound), abs=1)
    pause = np.abs(sound) < 0.01
    assert rms(babble[pause]) > 0.5 * rms(babble), "it does not pause"


def test_the_telephone_passes_1_khz_alone() -> None:
    def level(hertz: float, low: float, high: float, rate: int = RATE) -> float:
        limited = limit_band(sine(hertz, rate=rate), rate, low, high)
        return decibels(rms(limited[rate // 4 :]) / rms(sine(hertz)))

    assert level(1000, *BANDS[0]) == pytest.approx(0, abs=0.5)
    assert level(6000, *BANDS[0]) < -35 and level(150, *BANDS[0]) < -35
    assert level(3400, *BANDS[0]) == pytest.approx(-3, abs=0.1)
    assert level(7800, *BANDS[2]) < -20 and level(6000, *BANDS[2]) == pytest.approx(0, abs=0.5)
    assert level(3000, 500, 8000) == pytest.approx(0, abs=0.1), "above Nyquist's frequency nothing is cut"
    assert level(12_000, 500, 8000, 44_100) < -25


def test_microphones_raise_octaves() -> None:
    gains = np.array([-6.0, 6, -5, 5, -4, 4, -3, 3, 0])

    def level(hertz: float) -> float:
        return decibels(rms(equalise(sine(hertz), RATE, gains)) / rms(sine(hertz)))

    assert [level(hertz) for hertz in OCTAVES[:7]] == pytest.approx(gains[:7], abs=0.2)
    assert level(1000 * np.sqrt(2)) == pytest.approx(0, abs=0.2), "half an octave between -4 and 4 dB"


def envelope(sound: np.ndarray) -> np.ndarray:
    """Loudness in frames of 10 ms."""
    return np.sqrt(np.square(sound[: len(sound) // 160 * 160]).reshape(-1, 160).mean(axis=1))


def delay(sound: np.ndarray, of: np.ndarray) -> float:
    """Seconds by which a sound comes later than another one, by their correlation."""
    length = 2 * len(of)
    product = np.fft.rfft(sound, length) * np.conj(np.fft.rfft(of, length))
    lag = int(np.fft.irfft(product, length).argmax())
    return (lag - length * (lag > length // 2)) / RATE


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.encoder)
@pytest.mark.parametrize("quality", ["low", "high"])
def test_codecs_keep_the_voice_and_its_place(codec: Codec, quality: str, shared: Path) -> None:
    """At both ends of their bit rates, on a recording, which cross-correlates at one place alone."""
    found = decode(next((shared / "ravdess/audio/Actor_03").glob("03-01-05-02-*.flac")), video=False)
    assert found.waveform is not None
    sound = steps.resample(found.waveform, found.sample_rate, RATE)
    sound = np.asarray(0.5 * sound / np.abs(sound).max(), np.float32)
    coded = transcode(sound, RATE, codec, getattr(codec, quality))
    assert len(coded) == len(sound) and coded.dtype == np.float32
    assert np.corrcoef(envelope(coded), envelope(sound))[0, 1] > 0.95
    assert abs(delay(coded, sound)) < 0.003
    assert abs(decibels(rms(coded) / rms(sound))) < 3
    lost = rms(coded - sound) / rms(sound)
    assert lost > 0.005, "a codec is heard"


def test_codecs_work_at_any_rate_of_the_take() -> None:
    for rate in (8_000, 44_100):
        sound = voice(1.0, rate)
        for codec in CODECS:
            coded = transcode(sound, rate, codec, codec.high)
            assert len(coded) == len(sound)
            assert 0.5 < rms(coded) / rms(sound) < 2, codec.encoder
