"""Sound of several channels becomes one: levels, channels that cancel, and stereo as it is."""

import math
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from cfnsr.media.decode import decode, stream_sound
from cfnsr.media.downmix import Mono
from cfnsr.media.scan import scan_packets

RATE = 8_000
FLOATS = {"flt": "f4", "fltp": "f4", "dbl": "f8"}


def noise(channels: int, seconds: float = 2.0) -> np.ndarray:
    return np.random.default_rng(channels).uniform(-0.2, 0.2, (channels, round(seconds * RATE)))


def frames(samples: np.ndarray, layout: str, kind: str = "flt", size: int = 400) -> list[av.AudioFrame]:
    """Frames of a few samples each, of float or integer samples (C, N)."""
    made = []
    for first in range(0, samples.shape[1], size):
        part = samples[:, first : first + size]
        part = part if kind.endswith("p") else part.T.reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(part), kind, layout)
        frame.sample_rate = RATE
        made.append(frame)
    return made


def mixed(samples: np.ndarray, layout: str, kind: str = "flt") -> np.ndarray:
    mono = Mono()
    return np.concatenate([mono(frame) for frame in frames(samples, layout, kind)])


def film(path: Path, sound: np.ndarray, layout: str) -> Path:
    """A Matroska file of 16 bits a sample; `layout` may leave the channels without places."""
    with av.open(str(path), "w") as file:
        stream = file.add_stream("pcm_s16le", rate=RATE)
        stream.layout = layout
        for first, frame in enumerate(frames(np.rint(sound * 32_767).astype(np.int16), layout, "s16")):
            frame.pts, frame.time_base = 400 * first, Fraction(1, RATE)
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    return path


def levels_of_the_table(layout: str) -> np.ndarray:
    """ITU-R BS.775-3, table 2, one channel out of 3/2: C' = 0.7071 L + 0.7071 R + C + 0.5 LS + 0.5 RS."""
    table = {"FL": 0.7071, "FR": 0.7071, "FC": 1.0, "BL": 0.5, "BR": 0.5, "SL": 0.5, "SR": 0.5, "LFE": 0.0}
    return np.array([table[channel.name] for channel in av.AudioLayout(layout).channels])


@pytest.mark.parametrize("layout", ["3.0", "quad", "5.0", "5.1", "5.1(side)", "7.1"])
@pytest.mark.parametrize("kind", ["flt", "dbl", "s16"])
def test_surround_is_mixed_by_the_table(layout: str, kind: str) -> None:
    sound = noise(av.AudioLayout(layout).nb_channels)
    given = np.rint(sound * 32_767).astype("i2") if kind == "s16" else sound.astype(FLOATS[kind])
    np.testing.assert_allclose(mixed(given, layout, kind), levels_of_the_table(layout) @ sound, atol=3e-4)


def test_speech_in_the_centre_keeps_its_level(tmp_path: Path) -> None:
    (voice,) = noise(1)
    surround = np.zeros((6, len(voice)))
    surround[2] = voice
    path = film(tmp_path / "a.mkv", surround, "5.1")
    alone = decode(film(tmp_path / "b.mkv", voice[None], "mono"), video=False).waveform
    np.testing.assert_array_equal(decode(path, video=False).waveform, alone)
    streamed = np.concatenate([part for _, part in stream_sound(path, scan_packets(path))])
    np.testing.assert_array_equal(streamed, alone)


@pytest.mark.parametrize("codec", ["aac", "flac"])
def test_eight_channels_are_read(codec: str, tmp_path: Path) -> None:
    """PyAV alone crashes over so many planes."""
    surround = np.zeros((8, 2 * 48_000), np.float32)
    surround[2] = 0.3 * np.sin(2 * np.pi * 440 * np.arange(2 * 48_000) / 48_000)
    with av.open(str(tmp_path / "a.mkv"), "w") as file:
        stream = file.add_stream(codec, rate=48_000)
        stream.layout = "7.1"
        for at, frame in enumerate(frames(surround, "7.1", size=1_000)):
            frame.sample_rate, frame.pts, frame.time_base = 48_000, 1_000 * at, Fraction(1, 48_000)
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    found = decode(tmp_path / "a.mkv", video=False).waveform
    assert found is not None and len(found) == pytest.approx(96_000, abs=2_048)
    assert np.std(found[9_600:86_400]) == pytest.approx(0.3 * math.sqrt(0.5), rel=0.02)


def test_the_low_channel_has_no_part_even_where_it_is_damaged() -> None:
    sound = noise(6).astype(np.float32)
    expected = mixed(sound, "5.1")
    sound[3] = np.nan
    np.testing.assert_array_equal(mixed(sound, "5.1"), expected)


def test_six_channels_without_places_are_taken_for_surround_and_four_are_not() -> None:
    six, four = noise(6).astype(np.float32), noise(4).astype(np.float32)
    np.testing.assert_array_equal(mixed(six, "6 channels"), mixed(six, "5.1"))
    np.testing.assert_allclose(mixed(four, "4 channels"), four.mean(axis=0), atol=1e-7)


@pytest.mark.parametrize("kind", ["flt", "fltp", "s16", "s32p", "u8", "dbl"])
@pytest.mark.parametrize("share", [-0.5, 0.0, 0.3, 1.0])
def test_stereo_stays_as_it_is_to_the_last_bit(kind: str, share: float) -> None:
    """The mean, also where a channel is silent, both are alike, or one has a part of the other against it."""
    sound = noise(2)
    sound[1] = share * sound[0] + (1 - abs(share)) * sound[1]
    sound[:, 4_000:8_000] = 0
    if kind == "u8":
        given, scale, offset = np.rint(128 + 127 * sound).astype(np.uint8), 128.0, 1.0
    elif kind in FLOATS:
        given, scale, offset = sound.astype(FLOATS[kind]), 1.0, 0.0
    else:
        bits = 15 if kind == "s16" else 31
        given, scale, offset = np.rint(sound * (2**bits - 1)).astype(f"int{bits + 1}"), 2.0**bits, 0.0
    expected = (given.mean(axis=0, dtype=np.float64) / scale - offset).astype(np.float32)
    np.testing.assert_array_equal(mixed(given, "stereo", kind), expected)


@pytest.mark.parametrize("gain", [1.0, 0.8, 0.5, 0.3])
def test_of_two_channels_that_cancel_one_is_taken(gain: float) -> None:
    (voice,) = noise(1).astype(np.float32)
    np.testing.assert_array_equal(mixed(np.stack([voice, -gain * voice]), "stereo"), voice)
    if gain < 1:
        np.testing.assert_array_equal(mixed(np.stack([-gain * voice, voice]), "stereo"), voice)


def babble(seconds: float = 6.0) -> np.ndarray:
    """Syllables of a low voice, with pauses between them."""
    time = np.arange(round(seconds * RATE)) / RATE
    voice = sum(np.sin(2 * np.pi * 110 * order * time) / order for order in range(1, 20))
    return np.asarray(0.1 * voice * np.clip(np.sin(2 * np.pi * 1.5 * time), 0, None), np.float32)


@pytest.mark.parametrize("offsets", [(0.005, 0.005), (0.1, 0.1), (0.3, -0.1), (0.1, 0.0)])
def test_channels_that_cancel_are_noticed_in_spite_of_an_offset(offsets: tuple[float, float]) -> None:
    voice = babble()
    sound = np.stack([voice, -voice]) + np.array(offsets, np.float32)[:, None]
    found = mixed(sound, "stereo")
    np.testing.assert_array_equal(found[RATE // 10 :], sound[0][RATE // 10 :])


@pytest.mark.parametrize("hertz", [50, 60])
@pytest.mark.parametrize("hums", [(0.0, 0.03), (0.03, 0.0), (0.25, 0.25)])
def test_channels_that_cancel_are_noticed_in_spite_of_hum(hertz: float, hums: tuple[float, float]) -> None:
    voice = babble()
    hum = np.sin(2 * np.pi * hertz * np.arange(len(voice)) / RATE)
    sound = (np.stack([voice, -voice]) + np.array(hums)[:, None] * hum).astype(np.float32)
    found = mixed(sound, "stereo")
    loud = np.abs(voice) > 0.05
    assert (found == sound).any(axis=0)[loud].mean() > 0.95


@pytest.mark.parametrize("offset", [0.0, 0.2])
@pytest.mark.parametrize("share", [0.0, -0.1, 0.1, 1.0])
def test_what_hardly_cancels_stays_a_mean(share: float, offset: float) -> None:
    """A channel that is silent, or leaks a little of the other."""
    voice = babble()
    sound = np.stack([voice + np.float32(offset), np.float32(share) * voice])
    np.testing.assert_array_equal(mixed(sound, "stereo"), sound.mean(axis=0, dtype=np.float64).astype("f4"))


@pytest.mark.parametrize(("layout", "signs"), [("5.1", (1, -1)), ("4 channels", (1, -1, 1, -1))])
def test_what_cancels_in_surround_is_noticed_too(layout: str, signs: tuple[int, ...]) -> None:
    voice = noise(1)[0].astype(np.float32)
    surround = np.zeros((av.AudioLayout(layout).nb_channels, 2 * RATE), np.float32)
    surround[: len(signs)] = np.outer(signs, voice)
    np.testing.assert_array_equal(mixed(surround, layout), voice)


def test_channels_may_begin_and_stop_to_cancel() -> None:
    """It is noticed within two seconds, and each switch is one."""
    left, right = noise(2, 12.0).astype(np.float32)
    right[4 * RATE : 8 * RATE] = -left[4 * RATE : 8 * RATE]
    found = mixed(np.stack([left, right]), "stereo")
    mean = ((left.astype(np.float64) + right) / 2).astype(np.float32)
    np.testing.assert_array_equal(found[: 4 * RATE], mean[: 4 * RATE])
    np.testing.assert_array_equal(found[7 * RATE : 8 * RATE], left[7 * RATE : 8 * RATE])
    np.testing.assert_array_equal(found[9 * RATE :], mean[9 * RATE :])
    alone = (found == left).reshape(-1, 400).all(axis=1)
    assert np.abs(np.diff(alone.astype(int))).sum() == 2


def test_the_given_lavalier(cases: Path) -> None:
    """A balanced microphone sounds as its left channel."""
    path = cases / "channels/lavalier_balanced.mp4"
    with av.open(str(path)) as file:
        left = np.concatenate([frame.to_ndarray()[0] for frame in file.decode(audio=0)])
    found = decode(path, video=False).waveform
    assert found is not None and np.std(found) == pytest.approx(np.std(left), rel=0.01)
