"""The same recording is known by its sound in any codec; different takes of one sentence are told apart."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from cfnsr.media.decode import decode
from cfnsr.media.fingerprint import SAME, Content, alike, closeness, copies, read_content, sound_map
from cfnsr.media.mfcc import resample

Media = Callable[..., Path]


@pytest.fixture(scope="module")
def takes(shared: Path) -> list[Path]:
    """All 60 takes of a man and of a woman: each sentence twice in each emotion and intensity."""
    folder = shared / "ravdess" / "audio"
    found = [path for actor in ("01", "12") for path in sorted((folder / f"Actor_{actor}").glob("*.flac"))]
    assert len(found) == 120
    return found


@pytest.fixture(scope="module")
def sounds(takes: list[Path]) -> np.ndarray:
    contents = [read_content(path) for path in takes]
    assert not any(content.problem for content in contents)
    return np.stack([content.sound for content in contents])


def voice(seed: int, seconds: float = 2.0, rate: int = 16_000) -> np.ndarray:
    """Something like speech: harmonics of a wandering pitch, in syllables."""
    noise = np.random.default_rng(seed)
    time = np.arange(round(seconds * rate)) / rate
    knots = np.linspace(0, seconds, 9)
    pitch = np.interp(time, knots, noise.uniform(110, 240, 9))
    loudness = np.interp(time, knots, [0, *noise.uniform(0.1, 1, 7), 0])
    phase = 2 * np.pi * np.cumsum(pitch) / rate
    sound = sum(np.sin(k * phase) / k for k in range(1, 12))
    return (0.2 * loudness * sound).astype(np.float32)


def closeness_of(one: np.ndarray, other: np.ndarray) -> float:
    return float(closeness(one[None], other[None])[0])


def test_all_takes_of_two_actors_are_told_apart(sounds: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(alike(sounds)) == 0
    monkeypatch.setattr("cfnsr.media.fingerprint.SAME", 0.65)  # not just so
    assert len(alike(sounds)) == 0


def recode(source: Path, path: Path, codec: str, sample: str, rate: int, gain: float, layout: str) -> Path:
    """A copy of a recording at another level, in another codec, at another rate."""
    heard = decode(source, video=False)
    assert heard.waveform is not None
    samples = gain * resample(heard.waveform, heard.sample_rate, rate)[None]
    frame = av.AudioFrame.from_ndarray(samples, "fltp", "mono")
    frame.sample_rate = rate
    with av.open(str(path), "w") as file:
        track = file.add_stream(codec, rate=rate, layout=layout)
        fifo = av.AudioFifo()
        for piece in av.AudioResampler(format=sample, layout=layout, rate=rate).resample(frame):
            fifo.write(piece)
        size = track.codec_context.frame_size or 1024
        while (piece := fifo.read(size) or fifo.read(size, partial=True)) is not None:
            file.mux(track.encode(piece))
        file.mux(track.encode(None))
    return path


@pytest.mark.parametrize(
    ("suffix", "form"),
    [
        ("wav", ("pcm_s16le", "s16", 8_000, 0.1, "stereo")),
        ("flac", ("flac", "s16", 16_000, 0.5, "mono")),
        ("mp3", ("libmp3lame", "fltp", 22_050, 0.5, "stereo")),
        ("m4a", ("aac", "fltp", 16_000, 0.5, "mono")),
        ("ogg", ("libopus", "flt", 48_000, 0.5, "mono")),
    ],
)
def test_re_coded_takes_are_found(
    takes: list[Path], sounds: np.ndarray, tmp_path: Path, suffix: str, form: tuple[Any, ...]
) -> None:
    chosen = list(range(0, 120, 15))
    copied = [recode(takes[place], tmp_path / f"{place}.{suffix}", *form) for place in chosen]
    found = [read_content(copy).sound for copy in copied]
    scores = closeness(np.stack(found), sounds[chosen])
    assert scores.min() > SAME + 0.03, scores
    groups = copies([Content(str(i), sound) for i, sound in enumerate([*sounds, *found])])
    assert groups[chosen].tolist() == groups[120:].tolist() == list(range(len(found)))
    assert (groups >= 0).sum() == 2 * len(found)  # and nothing else is a copy


def test_the_sound_of_a_film_is_that_of_its_recording(shared: Path) -> None:
    films = sorted((shared / "clips" / "ravdess").rglob("*.mp4"))
    assert films
    for film in films:
        recording = shared / "ravdess/audio" / film.parent.name / f"03{film.stem[2:]}.flac"
        assert copies([read_content(film), read_content(recording)]).tolist() == [0, 0]


def test_delay_gain_offset_and_cut_silence_do_not_matter() -> None:
    sound = np.pad(voice(0), 8_000)
    base = sound_map(sound, 16_000)
    assert base is not None and base.shape == (128, 237)
    hiss = 0.01 * np.random.default_rng(1).normal(size=len(sound)).astype(np.float32)
    late, cut = np.pad(sound, (700, 0)), sound[7_900:-7_900]
    for changed in (0.01 * sound, -sound, sound + 0.1, late, cut, sound + hiss):
        other = sound_map(changed.astype(np.float32), 16_000)
        assert other is not None
        assert closeness_of(base, other) > 0.95


def test_another_voice_is_no_copy() -> None:
    maps = np.stack([sound_map(voice(seed), 16_000) for seed in range(12)])
    assert len(alike(maps)) == 0
    assert alike(maps[[3, 0, 3]]).tolist() == [[0, 2]]


def test_many_sounds_are_compared_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    maps = np.stack([sound_map(voice(seed), 16_000) for seed in (0, 1, 2, 0, 3, 2, 0)])
    expected = [[0, 3], [0, 6], [2, 5], [3, 6]]
    assert sorted(alike(maps).tolist()) == expected
    monkeypatch.setattr("cfnsr.media.fingerprint.BLOCK", 2)
    monkeypatch.setattr("cfnsr.media.fingerprint.BATCH", 1)
    assert sorted(alike(maps).tolist()) == expected


def test_bytes_and_sounds_make_one_set_of_copies() -> None:
    one, other = (sound_map(voice(seed), 16_000) for seed in (0, 1))
    contents = [Content("a", one), Content("b", other), Content("a", one), Content("c", one), Content("")]
    assert copies([*contents, Content("")]).tolist() == [0, -1, 0, 0, -1, -1]
    assert copies([]).tolist() == []


def test_silence_and_next_to_nothing_have_no_fingerprint() -> None:
    assert sound_map(np.zeros(16_000, np.float32), 16_000) is None
    assert sound_map(voice(0)[:100], 16_000) is None
    assert sound_map(np.zeros(0, np.float32), 16_000) is None


def test_what_cannot_be_listened_to_is_told(tmp_path: Path, media: Media) -> None:
    film = read_content(media("silent.mp4", audio=None))
    assert film.sha256 and film.sound is None and not film.broken and "no sound" in film.problem
    quiet = read_content(media("quiet.wav", video=None, audio="pcm_s16le", sound=np.zeros((1, 44_100))))
    assert quiet.sha256 and quiet.sound is None and not quiet.broken and "silent" in quiet.problem
    (tmp_path / "broken.mp4").write_bytes(b"\0\0\0\x18ftypmp42" + bytes(100))
    broken = read_content(tmp_path / "broken.mp4")
    assert broken.sha256 and broken.broken and "broken.mp4" in broken.problem
    (tmp_path / "features.npy").write_bytes(b"\x93NUMPY")
    features = read_content(tmp_path / "features.npy")
    assert features.sha256 and not features.problem
    gone = read_content(tmp_path / "gone.wav")
    assert not gone.sha256 and gone.broken and "gone.wav" in gone.problem
