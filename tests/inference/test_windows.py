"""A file cut into windows: when they are, which pictures and samples each has, and what is held of them."""

import math
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cfnsr.data import preparer, windows
from cfnsr.data.preparer import Picture, PreparedWindow, Preparer, Span, read_track, sound_tensors
from cfnsr.data.windows import READ_AHEAD, Windows, spans
from cfnsr.errors import InputError
from cfnsr.features.base import Sound
from cfnsr.features.preparation import Preparation
from cfnsr.media import face
from cfnsr.media.decode import decode
from cfnsr.media.encode import write_audio
from cfnsr.media.errors import MediaError, Reason
from cfnsr.media.openface import ACTION_UNITS, LANDMARKS
from cfnsr.media.scan import Scan

from .conftest import even

Film = Callable[..., Path]

SMALL = Preparation(frames=6, size=16, keep=0.5)
SIGHT, SOUND = replace(SMALL, modalities=("video",)), replace(SMALL, modalities=("audio",))
RATE = 8_000


def starts(duration: float, length: float | None, hop: float, **settings: Any) -> list[float]:
    """When windows begin; checked are their lengths."""
    found = spans(duration, Preparation(**settings), length, hop)
    for span in found:
        assert span.end - span.start == pytest.approx(length or 2.95)
    return [round(span.start, 6) for span in found]


def test_when_windows_are() -> None:
    assert spans(0.0, Preparation(), None, 1.0) == [(0, 0)]
    assert spans(6.0, Preparation(), None, 1.0) == [(0, 6.0)], "a take's length"
    assert spans(6.0, Preparation(), 6.0, 1.0) == [(0, 6.0)]
    assert starts(6.1, None, 1.0) == [0, 1, 2, 3, 3.15]
    assert starts(10.0, 3.0, 1.0) == [0, 1, 2, 3, 4, 5, 6, 7]
    assert starts(10.05, 3.0, 1.0) == [0, 1, 2, 3, 4, 5, 6, 7], "next to nothing is left over"
    assert starts(10.6, 3.0, 1.0) == [0, 1, 2, 3, 4, 5, 6, 7, 7.6], "more has a window of its own"
    assert starts(4.0, 3.0, 0.3) == [0, 0.3, 0.6, 0.9]
    assert starts(20.0, 2.0, 7.0) == [0, 7, 14, 18], "with gaps between them"
    assert len(starts(3600.0, 3.0, 0.1)) == 35_971, "no rounding takes the last one away"
    assert spans(7.0, Preparation(keep=10), None, 1.0) == [(0, 7.0)], "as long as a clip's sound"
    assert spans(11.0, Preparation(keep=10), None, 1.0) == [(0, 10.5), (0.5, 11.0)]
    assert len(spans(60.0, Preparation(skip=3, keep=40), 43.0, 9.0)) == 3


@pytest.mark.parametrize(
    ("length", "hop", "words"),
    [
        (1.0, 1.0, "--window is 1 s: expected 1.5 to 30"),
        (31.0, 1.0, "--window is 31 s: expected 1.5 to 30"),
        (math.nan, 1.0, "--window is nan s"),
        (None, 0.05, "--hop is 0.05 s: expected 0.1 to 30"),
        (None, 31.0, "--hop is 31 s"),
        (None, math.inf, "--hop is inf s"),
        (None, math.nan, "--hop is nan s"),
    ],
)
def test_windows_that_cannot_be(length: float | None, hop: float, words: str) -> None:
    for duration in (2.0, 20.0):
        with pytest.raises(InputError, match=words):
            spans(duration, Preparation(), length, hop)
    with pytest.raises(InputError, match="expected 4 to 30"):  # half a second has to be left
        spans(9.0, Preparation(skip=3), 3.5, 1.0)


def grid(times: np.ndarray, start: float, step: float, frames: int) -> list[int]:
    """The pictures nearest to evenly spaced seconds, one by one; of two as near the first."""
    first = round(start / step)
    return [int(np.abs(times - (first + place) * step).argmin()) for place in range(frames)]


def alike(found: PreparedWindow, video: dict[str, np.ndarray], sound: dict[str, np.ndarray]) -> None:
    """A window has these tensors and no others."""
    expected = {**video, **sound}
    assert set(found.tensors) == set(expected)
    for name, array in expected.items():
        assert found.tensors[name].dtype == array.dtype
        np.testing.assert_array_equal(found.tensors[name], array, err_msg=name)


@pytest.mark.parametrize("apart", [False, True], ids=["interleaved", "pictures before sound"])
def test_each_window_is_prepared_as_a_take_of_its_own(film: Film, spots: Any, apart: bool) -> None:
    """Its pictures and sound, taken out of the whole film, by the detector and cutter of takes."""

    def faces(time: float) -> list[Any]:
        return [("red", 20 + round(3 * time), 10, 24)] if not 4.1 < time < 4.6 else []

    path = film(9.3, faces=faces, apart=apart)
    whole = decode(path, frames=140)
    assert whole.frames is not None and whole.waveform is not None and len(whole.times) == 140
    assert np.all(np.diff(whole.frame_numbers) == 1)
    found = list(Windows(path, SMALL, length=3.0, hop=0.7))
    assert [each.span.start for each in found] == pytest.approx([0.7 * hop for hop in range(10)])
    for each in found:
        assert (each.face, each.speech, each.person) == (True, True, 0)
        numbers = grid(whole.times, each.span.start, 0.5, 6)
        assert len(set(numbers)) == 6
        assert np.abs(whole.times[numbers] - each.span.start - 0.5 * np.arange(6)).max() < 0.3
        times, frames, follower = whole.times[numbers], whole.frames[numbers], face.Follower()
        linked = [follower.add(spots.detect(frame)) for frame in frames]
        person = face.people_of(linked, times)[0][1]
        cut = face.cut(frames, times, person, margin=SMALL.margin, size=16)
        assert cut.squares[0, 0] == pytest.approx(32 + 3 * times[0], abs=2), "where the face was painted"
        seen = {"video": cut.crops, "times": times, "face": cut.found, "squares": cut.squares}
        begin = round(each.span.start * RATE)
        samples = whole.waveform[begin : begin + 3 * RATE]
        sound = sound_tensors(Sound(samples, RATE, SOUND), SOUND)
        alike(each, {**seen, "squares": cut.squares.astype(np.float32)}, sound)
    lost = [each.span.start for each in found if not each.tensors["face"].all()]
    assert len(lost) > 2, "a picture without a face among others changes nothing but that"


def test_consecutive_pictures_are_the_middle_run_of_the_window(film: Film, spots: Any) -> None:
    path = film(8.0, sound=[])
    preparation = replace(SIGHT, sampling="consecutive")
    times = decode(path, frames=120, audio=False).times
    found = list(Windows(path, preparation, length=2.0, hop=1.0))
    assert len(found) == 7
    for each in found:
        inside = np.flatnonzero((times >= each.span.start) & (times < each.span.end))
        middle = inside[(len(inside) - 6) // 2 :][:6]
        np.testing.assert_array_equal(each.tensors["times"], times[middle])


def test_pictures_that_windows_share_are_decoded_and_searched_once(
    film: Film, spots: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = film(8.0)
    asked: list[int] = []
    stream = windows.stream_pictures

    def counting(path: Path, scan: Scan, numbers: np.ndarray, **settings: Any) -> Iterator[np.ndarray]:
        asked.extend(numbers.tolist())
        return stream(path, scan, numbers, **settings)

    monkeypatch.setattr(windows, "stream_pictures", counting)
    found = list(Windows(path, SMALL, length=3.0, hop=0.5))
    assert len(found) == 11
    shown = sorted({float(time) for each in found for time in each.tensors["times"]})
    assert len(shown) == 16, "one each half second from 0 to 7.5"
    assert spots.looked == len(asked) == len(set(asked)) == 16


@pytest.mark.parametrize("sampling", ["even", "consecutive"])
@pytest.mark.parametrize(("fps", "length", "hop"), [(12.5, 30.0, 0.1), (12.5, 15.0, 0.3), (5, 7.0, 0.7)])
def test_no_rounding_asks_for_a_picture_that_is_gone(
    monkeypatch: pytest.MonkeyPatch, fps: float, length: float, hop: float, sampling: Any
) -> None:
    """Where a picture lies just between two others, windows agree on the one to take."""
    scan = pretended(36, fps, 0)
    monkeypatch.setattr(windows, "scan_packets", lambda path, streams: scan)
    monkeypatch.setattr(windows, "stream_pictures", shown(Held()))
    monkeypatch.setattr("cfnsr.data.preparer.detector", Anywhere)
    preparation = replace(SIGHT, frames=15, sampling=sampling)
    found = list(Windows(Path("film"), preparation, length=length, hop=hop))
    places: dict[int, set[float]] = {}
    for each in found if sampling == "even" else []:
        for place, time in enumerate(each.tensors["times"].tolist(), round(each.span.start / (length / 15))):
            places.setdefault(place, set()).add(time)
    assert all(len(times) == 1 for times in places.values())
    assert [each.span for each in found] == spans(scan.duration, preparation, length, hop)


def pretended(seconds: float, fps: float, rate: int) -> Scan:
    """What a scan tells of a film that is nowhere."""
    times = np.arange(round(seconds * fps)) / fps
    return Scan(
        keys=np.arange(len(times)),
        times=times,
        stamped=True,
        fps=fps,
        zero=0.0,
        sample_rate=rate,
        sound_start=0.0,
        duration=seconds,
    )


class Held:
    """Counts arrays that are held at once."""

    def __init__(self) -> None:
        self.now = self.most = 0

    def add(self, array: np.ndarray) -> np.ndarray:
        self.now += len(array)
        self.most = max(self.most, self.now)
        weakref.finalize(array, self._drop, len(array))
        return array

    def _drop(self, size: int) -> None:
        self.now -= size


def shown(held: Held) -> Callable[..., Iterator[np.ndarray]]:
    """In place of `stream_pictures`: pictures of one row each, with a face, that are counted."""

    def stream(path: Path, scan: Scan, numbers: np.ndarray, **_: Any) -> Iterator[np.ndarray]:
        for number in numbers.tolist():
            picture = np.full((1, 96, 3), number % 250, np.uint8)
            yield held.add(picture)

    return stream


class Anywhere:
    """A detector that sees one face in each picture."""

    def detect(self, frame: np.ndarray) -> np.ndarray:
        return np.array([[30, 8, 24, 24, 0.9]], np.float32)


@pytest.mark.parametrize(
    ("length", "hop", "frames", "seconds"),
    [(3.0, 10.0, 6, 1200), (30.0, 5.0, 15, 600), (None, 1.0, 6, 600)],
)
def test_what_is_held_does_not_grow_with_the_film(
    monkeypatch: pytest.MonkeyPatch, length: float | None, hop: float, frames: int, seconds: int
) -> None:
    """Of a long one no more than of a minute: the pictures of one window, and the sound of one."""

    def most(seconds: float) -> tuple[int, int, int]:
        pictures, samples = Held(), Held()

        def stream_sound(path: Path, scan: Scan) -> Iterator[tuple[int, np.ndarray]]:
            for _ in range(round(seconds)):
                yield 100, samples.add(np.resize(np.float32([1, -1]), 100))

        def sound_tensors(sound: Sound, *_: Any) -> dict[str, np.ndarray]:
            assert len(sound.samples) == round((length or 2.95) * sound.rate)
            return {"level": np.zeros(1)}

        monkeypatch.setattr(windows, "scan_packets", lambda path, streams: pretended(seconds, 25, 100))
        monkeypatch.setattr(windows, "stream_pictures", shown(pictures))
        monkeypatch.setattr(windows, "stream_sound", stream_sound)
        monkeypatch.setattr(preparer, "sound_tensors", sound_tensors)
        monkeypatch.setattr(preparer, "detector", Anywhere)
        monkeypatch.setattr(face, "cut", lambda *_, **settings: None)
        monkeypatch.setattr(Preparer, "_picture_tensors", lambda self, faces, times: {"times": times})
        count = 0
        preparation = replace(SMALL, frames=frames, keep=2.45)
        for window in Windows(Path("film"), preparation, length=length, hop=hop):
            assert window.face and window.speech
            count += 1
        return pictures.most, samples.most, count

    minute, long = most(60), most(seconds)
    assert long[:2] == minute[:2] and long[2] > 9 * minute[2]
    assert minute[0] <= frames + READ_AHEAD + 2, "the pictures of one window, and those on their way"
    assert minute[1] <= 100 * (max(hop, length or 2.95) + 4)


def test_pictures_of_one_window_go_before_the_next_ones_come(
    film: Film, spots: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same with a real film, its decoder and its cutter."""
    held = Held()
    stream = windows.stream_pictures

    def counting(*given: Any, **settings: Any) -> Iterator[np.ndarray]:
        for picture in stream(*given, **settings):
            yield held.add(picture)

    monkeypatch.setattr(windows, "stream_pictures", counting)
    assert len(list(Windows(film(12.0, apart=True), SIGHT, length=2.0, hop=2.0))) == 6
    assert held.most <= 48 * (6 + READ_AHEAD + 2)


@pytest.mark.parametrize("rate", [8_000, 11_025, 48_000])
@pytest.mark.parametrize(("length", "hop"), [(1.5, 0.1), (2.0, 0.37), (2.95, 1.0)])
def test_sound_is_cut_to_the_sample(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rate: int, length: float, hop: float
) -> None:
    parts: list[np.ndarray] = []

    def sound_tensors(sound: Sound, *_: Any) -> dict[str, np.ndarray]:
        parts.append(sound.samples.copy())
        return {}

    monkeypatch.setattr(preparer, "sound_tensors", sound_tensors)
    sound = np.random.default_rng(0).uniform(-1, 1, round(6.13 * rate)).astype(np.float32)
    path = write_audio(tmp_path / "sound.wav", sound, rate)
    (written,) = [decode(path, video=False).waveform]
    assert written is not None and len(written) == len(sound)
    assert len(np.unique(written)) > 5000, "so that any other sample is another number"
    found = list(Windows(path, SOUND, length=length, hop=hop))
    assert len(found) == len(parts) > 3
    for each, part in zip(found, parts, strict=True):
        begin = round(each.span.start * rate)
        np.testing.assert_array_equal(part, written[begin : begin + round(length * rate)])
        missing = round(length * rate) - len(part)
        assert missing == 0 or (each is found[-1] and missing <= 1)


def test_the_shortest_windows_are_heard_all_along(tmp_path: Path) -> None:
    """At a rate where a hop is no whole number of samples, too, and where the sound ends just too early."""
    sound = np.random.default_rng(0).uniform(-1, 1, 11_025 * 5 - 300).astype(np.float32)
    path = write_audio(tmp_path / "sound.wav", sound, 11_025)
    found = list(Windows(path, SOUND, length=1.5, hop=0.1))
    assert len(found) > 30 and all(each.speech for each in found)


def level(samples: np.ndarray) -> float:
    """dBFS of the second half second."""
    return 10 * math.log10(np.square(samples[RATE // 2 : RATE].astype(np.float64)).mean() + 1e-12)


def loudest(samples: np.ndarray) -> float:
    """dBFS of the loudest tenth of a second of the second half second."""
    tenths = range(RATE // 2, RATE, RATE // 10)
    powers = [np.square(samples[first : first + RATE // 10].astype(float)).sum() for first in tenths]
    return 10 * math.log10(max(powers) / (RATE // 10) + 1e-12)


@pytest.mark.parametrize("case", ["late", "early", "hole", "long hole"])
def test_sound_that_is_not_there_all_along(film: Film, spots: Any, case: str) -> None:
    """Each second is heard where it is, and nothing where there is none."""
    whole = np.random.default_rng(1).uniform(-0.3, 0.3, 24 * RATE)
    heard = {
        "late": [(4.2, 24.0)],
        "early": [(0.0, 19.2)],
        "hole": [(0.0, 8.2), (13.2, 24.0)],
        "long hole": [(0.0, 5.2), (19.2, 24.0)],
    }[case]
    parts = [(begin, whole[round(begin * RATE) : round(end * RATE)]) for begin, end in heard]
    expected = np.zeros_like(whole)
    for begin, end in heard:
        expected[round(begin * RATE) : round(end * RATE)] = whole[round(begin * RATE) : round(end * RATE)]
    path = film(24.0, sound=parts, fps=5)
    found = list(Windows(path, SMALL, length=2.95, hop=1.0))
    assert len(found) == 22
    silent = 0
    for each in found:
        begin = round(each.span.start * RATE)
        samples = expected[begin : begin + round(2.95 * RATE)]
        loud = loudest(samples) > -60
        if "level" in each.tensors:
            assert each.tensors["level"][0] == pytest.approx(max(level(samples), -120), abs=0.3)
        else:
            assert case == "early" and each.span.start + 1 > 19.2, "hardly any sound is left"
            loud = False
        assert each.face and each.speech is loud
        silent += not loud
    assert silent == {"late": 4, "early": 3, "hole": 5, "long hole": 14}[case]


def test_a_clock_that_leaps_is_refused(film: Film) -> None:
    path = film(3.0, times=[0.0, 0.5, 1.0, 400_000.0], sound=[])
    with pytest.raises(MediaError, match=r"film.mkv declares 111 hours: expected at most 100"):
        Windows(path, SIGHT)


def test_sound_of_an_hour_late_takes_no_memory(film: Film) -> None:
    """Silence before it comes in small parts, as all sound."""
    times = [0.0, 0.5, 1.0, 4000.0]
    path = film(3.0, name="film.mov", times=times, sound=[(3999.0, np.full(RATE, 0.3))])
    scan = windows.scan_packets(path)
    parts = [(rate, len(part)) for rate, part in windows.stream_sound(path, scan)]
    assert {rate for rate, _ in parts} == {RATE} and max(length for _, length in parts) <= RATE
    assert sum(length for _, length in parts) == pytest.approx(4000 * RATE, abs=20)


def test_pictures_that_come_unevenly(film: Film, spots: Any) -> None:
    """30 a second, then 4, then 15: each window shows those nearest to its grid."""
    times = [
        *(place / 30 for place in range(90)),
        *(3 + place / 4 for place in range(16)),
        *np.arange(7, 9, 1 / 15),
    ]
    path = film(9.0, times=times)
    scanned = windows.scan_packets(path).times
    np.testing.assert_allclose(scanned, times, atol=0.001)
    found = list(Windows(path, replace(SIGHT, frames=12), length=3.0, hop=1.0))
    assert len(found) == 7
    for each in found:
        assert each.face and each.tensors["times"].tolist() == [
            scanned[number] for number in grid(scanned, each.span.start, 0.25, 12)
        ]


@pytest.mark.parametrize("sampling", ["even", "consecutive"])
def test_a_picture_that_stands_still_is_no_face(
    film: Film, spots: Any, monkeypatch: pytest.MonkeyPatch, sampling: Any
) -> None:
    """The camera stalls from 4 s to 9 s, and ends at 12 s; the sound goes on. Nobody is seen then."""
    monkeypatch.setattr(preparer, "sound_tensors", lambda *_: {"level": np.zeros(1)})
    path = film(18.0, times=[time for time in even(12.0) if not 4 < time < 9])
    found = list(Windows(path, replace(SMALL, sampling=sampling), length=2.0, hop=1.0))
    assert len(found) == 17
    seen = [each.span.start for each in found if each.face]
    assert seen == [0, 1, 2, 3, 8, 9, 10, 11], "a picture is shown for half a second, in half of a window"
    for each in found:
        assert each.speech and ("video" in each.tensors) is each.face
        assert (each.person is not None) is each.face


def test_a_film_of_few_pictures_a_second_is_seen(film: Film, spots: Any) -> None:
    """One each 4 s: each is what is to be seen until the next one."""
    path = film(24.0, times=np.arange(0.0, 28.0, 4.0).tolist(), sound=[(0.0, np.zeros(28 * RATE))])
    for sampling in ("even", "consecutive"):
        found = list(Windows(path, replace(SIGHT, sampling=sampling), length=2.0, hop=1.0))  # type: ignore[arg-type]
        assert len(found) > 18 and all(each.face for each in found)


def test_a_burst_of_pictures_asks_for_none_that_is_gone(film: Film, spots: Any) -> None:
    """A hundred within a tenth of a second, then one in three: windows go forward only."""
    times = [0.0, *(1.85 + place / 1000 for place in range(100)), *np.arange(2.0, 24.0, 3.0)]
    path = film(24.0, times=times, sound=[(0.0, np.zeros(24 * RATE))])
    for sampling in ("even", "consecutive"):
        for length, hop in ((2.0, 0.1), (1.5, 0.4), (3.0, 0.9)):
            preparation = replace(SIGHT, sampling=sampling)  # type: ignore[arg-type]
            assert len(list(Windows(path, preparation, length=length, hop=hop))) > 20


def test_one_picture_and_much_sound(film: Film, spots: Any) -> None:
    found = list(Windows(film(9.0, times=[0.0]), SMALL, length=3.0, hop=1.0))
    assert [each.face for each in found] == [False] * 7 and all(each.speech for each in found)


def test_one_window_of_a_longer_file_is_no_take(film: Film, spots: Any) -> None:
    """A hop that leaves one window alone does not make it show and hear what comes after."""
    path = film(9.0, faces=lambda time: [("red", 30, 8, 24)] if time < 3 else [])
    found, end = Windows(path, SMALL, length=3.0, hop=20.0)
    assert end.span == Span(6.0, 9.0) and not end.face
    assert found.span == Span(0.0, 3.0)
    assert found.tensors["times"].tolist() == pytest.approx([0, 0.5, 1, 1.5, 2, 2.5], abs=0.04)
    whole = decode(path, video=False).waveform
    assert whole is not None
    for name, array in sound_tensors(Sound(whole[: 3 * RATE], RATE, SOUND), SOUND).items():
        np.testing.assert_array_equal(found.tensors[name], array)


def beside(time: float) -> list[tuple[str, int, int, int]]:
    """Two people, the right one a little larger from 4 s on and much larger from 8 s on."""
    size = 18 if time < 4 else 22 if time < 8 else 34
    return [("red", 4, 8, 20), ("blue", 56, 6, size)]


def test_who_comes_first_stays_beside_a_face_that_is_little_larger(film: Film, spots: Any) -> None:
    found = list(Windows(film(12.0, faces=beside, sound=[]), SIGHT, length=2.0, hop=1.0))
    assert [each.person for each in found] == [0] * 8 + [1] * 3, "from where it is half as large again"
    assert [each.tensors["squares"][0, 0] < 48 for each in found] == [True] * 8 + [False] * 3


def test_everyone_is_followed_and_keeps_a_number(film: Film, spots: Any) -> None:
    """Both in each window; the first is whom a single answer would be about."""
    path = film(12.0, faces=beside, sound=[(0.0, np.tile(np.sin(np.arange(RATE)), 12))])
    alone = list(Windows(path, SMALL, length=2.0, hop=1.0))
    found = list(Windows(path, SMALL, length=2.0, hop=1.0, everyone=True))
    assert len(found) == 2 * len(alone)
    for first, second, single in zip(found[::2], found[1::2], alone, strict=True):
        assert first.span == second.span == single.span
        assert {first.person, second.person} == {0, 1} and first.person == single.person
        for each in (first, second):
            assert (each.tensors["squares"][:, 0] < 48).all() == (each.person == 0)
            assert (each.face, each.speech) == (True, True)
            reddish = each.tensors["video"].mean(axis=(0, 1, 2))
            assert (reddish[0] > reddish[2]) == (each.person == 0)
        np.testing.assert_array_equal(first.tensors["video"], single.tensors["video"])
        assert first.tensors["audio"] is second.tensors["audio"]


def test_one_window_alone_is_as_among_the_others(
    film: Film, spots: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the same faces at the same places; of the others only the one before is prepared."""
    sound = np.random.default_rng(0).normal(0, 0.1, 12 * RATE)
    path = film(12.0, faces=beside, sound=[(0.0, sound)])
    settings: dict[str, Any] = {"length": 2.0, "hop": 0.7, "everyone": True}
    found = list(Windows(path, SMALL, **settings))
    read: list[Span] = []
    sound_of = Windows.sound
    monkeypatch.setattr(Windows, "sound", lambda self, span: read.append(span) or sound_of(self, span))
    for place, span in enumerate(Windows(path, SMALL, **settings).spans):
        read.clear()
        several = Windows(path, SMALL, **settings)
        alone, expected = several.one(place), [each for each in found if each.span == span]
        assert len(alone) == len(expected) == 2
        for each, other in zip(sorted(alone, key=side), sorted(expected, key=side), strict=True):
            assert (each.span, each.face, each.speech) == (span, other.face, other.speech)
            alike(each, dict(other.tensors), {})
        assert read == several.spans[max(0, place - 1) : place + 1]


def side(window: PreparedWindow) -> float:
    """Where a face is, from the left."""
    return float(window.tensors["squares"][0, 0])


def test_who_leaves_and_returns(film: Film, spots: Any) -> None:
    """Away for less than a window, the same; away for longer, somebody new. Nobody is marked in between."""

    def faces(time: float) -> list[Any]:
        return [] if 3 < time < 4 or 7 < time < 11 else [("red", 30, 8, 24)]

    found = list(Windows(film(15.0, faces=faces, sound=[]), SIGHT, length=2.0, hop=1.0))
    people = {round(each.span.start): each.person for each in found}
    assert [people[start] for start in range(7)] == [0] * 7
    assert [people[start] for start in (7, 8, 9)] == [None] * 3
    assert [people[start] for start in (11, 12, 13)] == [1] * 3
    for each in found:
        assert each.face is (each.person is not None) is ("video" in each.tensors)
    share = {start: sum(bool(faces(start + place / 3)) for place in range(6)) for start in range(14)}
    seen = {round(each.span.start) for each in found if each.face}
    assert seen == {start for start, count in share.items() if count >= 3}


def test_a_passer_by_is_nobody(film: Film, spots: Any) -> None:
    """Seen in less than half of the window's pictures, however large."""

    def faces(time: float) -> list[Any]:
        return [("red", 4, 8, 20), *([("blue", 50, 4, 40)] if 3.9 < time < 4.6 else [])]

    found = list(Windows(film(9.0, faces=faces, sound=[]), SIGHT, length=3.0, hop=1.0, everyone=True))
    assert [each.person for each in found] == [0] * 7


def test_without_pictures_or_without_sound(film: Film, tmp_path: Path, spots: Any) -> None:
    mute = film(8.0, name="mute.mkv", sound=[])
    deaf = write_audio(tmp_path / "deaf.wav", np.resize(np.float32([0.1, -0.1]), 8 * RATE), RATE)
    for path, reason in ((mute, "no sound"), (deaf, "no picture")):
        with pytest.raises(MediaError) as caught:
            Windows(path, SMALL)
        assert caught.value.reason == reason and path.name in str(caught.value)
    seen = list(Windows(mute, SMALL, length=3.0, tolerant=True))
    assert len(seen) == 6
    assert {(each.face, each.speech, "audio" in each.tensors) for each in seen} == {(True, False, False)}
    heard = list(Windows(deaf, SMALL, tolerant=True))
    assert {(each.face, each.speech, "video" in each.tensors) for each in heard} == {(False, True, False)}
    for path, preparation in ((deaf, SIGHT), (mute, SOUND)):
        for tolerant in (False, True):
            with pytest.raises(MediaError):
                Windows(path, preparation, tolerant=tolerant)
    assert {(each.face, each.speech) for each in Windows(mute, SIGHT)} == {(True, None)}
    assert {(each.face, each.speech) for each in Windows(deaf, SOUND)} == {(None, True)}


def test_what_is_too_short_to_be_heard(film: Film, spots: Any) -> None:
    """A file of that length is refused, unless its pictures are enough."""
    path = film(0.8)
    with pytest.raises(MediaError, match=r"film.mkv: 0.80 s of sound: expected at least 1 s") as error:
        list(Windows(path, SMALL))
    assert error.value.reason == "too short"
    (found,) = Windows(path, SMALL, tolerant=True)
    assert found.face and found.speech is False and "audio" not in found.tensors


def test_a_take_that_speaks_late_is_cut(film: Film, spots: Any) -> None:
    """What is heard of a take is silent there; a file that is silent to its end stays one window."""
    usual = SMALL.skip + SMALL.keep
    for late, expected in ((3.0, 5), (0.6, 1), (9.0, 1)):
        sound = np.random.default_rng(0).uniform(-0.3, 0.3, 5 * RATE)
        sound[: round(late * RATE)] = 0
        found = list(Windows(film(5.0, sound=[(0.0, sound)]), SMALL))
        assert [len(found), found[0].span] == [expected, (0, pytest.approx(usual if expected > 1 else 5.0))]
        assert [each.speech for each in found] == ([False] * 3 + [True] * 2 if expected > 1 else [late < 1])
        assert next(iter(Windows(film(5.0, sound=[(0.0, sound)]), SMALL, length=6.0))).span.end == 5.0


def test_large_pictures_of_long_files_are_shrunk(
    film: Film, spots: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half as large; the squares are those of the file's own pictures."""
    path = film(9.0, sound=[])
    plain = list(Windows(path, SIGHT, length=2.0))
    monkeypatch.setattr(windows, "LONGEST_SIDE", 48)
    shrunk, sizes = list(Windows(path, SIGHT, length=2.0)), set()
    for each, other in zip(shrunk, plain, strict=True):
        np.testing.assert_allclose(each.tensors["squares"], other.tensors["squares"], atol=7.5)
        crops = [stretch.tensors["video"].astype(int) for stretch in (each, other)]
        assert np.abs(crops[0] - crops[1]).mean() < 25
    detect = spots.detect
    monkeypatch.setattr(spots, "detect", lambda frame: sizes.add(frame.shape) or detect(frame))
    list(Windows(path, SIGHT, length=2.0))
    assert sizes == {(24, 48, 3)}
    list(Windows(path, SIGHT, length=10.0))
    assert sizes == {(24, 48, 3), (48, 96, 3)}, "a take's never"


def test_a_scrap_of_speech_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """An encoder of speech would hear a take however short; half a second is the least of a window."""

    class Encoder:
        def features(self, waveform: np.ndarray, *, threads: int = 0) -> np.ndarray:
            return np.zeros((2, len(waveform) // 1280, 4), np.float16)

    monkeypatch.setattr("cfnsr.features.speech.find_encoder", lambda *_: Encoder())
    preparation = Preparation(modalities=("speech",), speech_sha256="0" * 64)
    sound = np.random.default_rng(0).uniform(-0.3, 0.3, RATE).astype(np.float32)
    with pytest.raises(MediaError, match=r"^0\.50 s of sound: expected at least 0\.5 s"):
        sound_tensors(Sound(sound[: RATE // 2 - 1], RATE, preparation), preparation)
    found = sound_tensors(Sound(sound[: RATE // 2], RATE, preparation), preparation)
    assert set(found) == {"level", "speech", "speech_0.9", "speech_1.1"}


@pytest.mark.parametrize(("reason", "of_the_window"), [("too short", True), ("broken", False)])
def test_an_error_of_the_file_is_no_missing_speech(
    film: Film, monkeypatch: pytest.MonkeyPatch, reason: Reason, of_the_window: bool
) -> None:
    def fail(*_: Any) -> dict[str, np.ndarray]:
        raise MediaError(reason, "an input of sound cannot be made")

    monkeypatch.setattr(preparer, "sound_tensors", fail)
    windows = Windows(film(9.0), SOUND, length=3.0)
    if of_the_window:
        assert {(each.speech, each.missing["audio"].reason) for each in windows} == {(False, reason)}
    else:
        with pytest.raises(MediaError, match="cannot be made"):
            list(windows)


def csv(path: Path, columns: dict[str, Any]) -> Path:
    rows = zip(*columns.values(), strict=True)
    path.write_text("\n".join([",".join(columns), *(",".join(map(str, row)) for row in rows)]) + "\n")
    return path


def write_track(path: Path, times: np.ndarray, seen: np.ndarray, points: bool = True) -> Path:
    """An OpenFace track whose first action unit tells the row, and whose face is a square of 20 pixels."""
    count = len(times)
    columns: dict[str, Any] = {
        "frame": range(1, count + 1),
        "timestamp": np.round(times, 3),
        "confidence": [0.9] * count,
        "success": seen.astype(int),
        **{name: np.zeros(count) for name in ACTION_UNITS},
        ACTION_UNITS[0]: np.round(np.arange(count) / count * 5, 4),
    }
    if points:
        places = np.random.default_rng(0).uniform(0, 20, 68)
        columns |= {
            name: np.round(places[i % 68] + 30 + np.arange(count) / 10, 2) for i, name in enumerate(LANDMARKS)
        }
        columns |= {f"y_{i}": np.full(count, round(places[-i] + 14, 2)) for i in range(68)}
    return csv(path, columns)


def test_a_long_track_of_action_units_is_cut_by_its_times(film: Film, tmp_path: Path) -> None:
    path = film(10.0)
    times = np.arange(150) / 15
    seen = ~((times >= 3.5) & (times < 7.5))
    table = write_track(tmp_path / "film.csv", times, seen)
    track = read_track("film", table)
    preparation = Preparation(modalities=("openface",))
    found = list(Windows(path, preparation, length=2.0, hop=1.0, openface=table))
    assert len(found) == 9
    for each in found:
        rows = [row for row in range(150) if each.span.start <= round(times[row], 3) < each.span.end]
        there = [row for row in rows if seen[row]]
        assert each.face is (len(there) >= len(rows) / 2) and each.speech is None
        if each.face:
            np.testing.assert_array_equal(each.tensors["openface"], track.rows(np.array(there)).features())
            np.testing.assert_allclose(each.tensors["openface_times"], times[there], atol=0.001)
        else:
            assert not each.tensors
    assert [each.span.start for each in found if not each.face] == [3, 4, 5, 6]
    (one,) = Windows(path, preparation, length=12.0, openface=table)
    np.testing.assert_array_equal(one.tensors["openface"], track.seen().features())


def test_points_of_a_long_track_say_where_the_face_is(film: Film, tmp_path: Path, spots: Any) -> None:
    path = film(10.0)
    times = np.arange(150) / 15
    seen = ~((times >= 3.5) & (times < 7.5))
    table = write_track(tmp_path / "film.csv", times, seen)
    track = read_track("film", table)
    whole = decode(path, frames=150, audio=False)
    assert whole.frames is not None
    found = list(Windows(path, SIGHT, length=2.0, hop=1.0, openface=table))
    assert spots.looked == 0, "no detector is asked"
    assert [each.span.start for each in found if not each.face] == [3, 4, 5, 6]
    for each in found:
        assert each.person is None
        if each.face:
            numbers = np.array(grid(whole.times, each.span.start, 1 / 3, 6))
            cut = face.cut_faces(whole.frames[numbers], whole.times[numbers], track.at(numbers), size=16)
            np.testing.assert_array_equal(each.tensors["video"], cut.crops)
            np.testing.assert_array_equal(each.tensors["face"], cut.found)


def test_one_picture_in_a_quarter_of_a_second_is_searched(film: Film, spots: Any) -> None:
    """Of a long file and of a take alike, and of a take the last."""
    path = film(8.0)  # 15 a second
    fine = replace(SIGHT, frames=30)
    found = list(Windows(path, fine, length=3.0, hop=1.0))
    times = np.unique(np.concatenate([each.tensors["times"] for each in found]))
    assert len(times) > 60 and spots.looked == 32
    for each in found:
        seen = Preparer(fine, 3.0).due(times)[np.isin(times, each.tensors["times"])]
        np.testing.assert_array_equal(each.tensors["face"], seen)
    (take,) = Windows(film(3.0), fine)
    assert spots.looked == 32 + 13 and take.tensors["face"].sum() == 13 and take.tensors["face"][-1]


def test_where_a_face_is_between_two_searches(
    film: Film, spots: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As good as where every picture is searched; of a take also at its end."""
    path = film(6.0, faces=lambda time: [("red", round(4 + 6 * time), 8, 24)])
    fine = replace(SIGHT, frames=30)
    with monkeypatch.context() as patch:
        patch.setattr(preparer, "SEARCH", 1e-6)
        (exact,) = Windows(path, fine, length=6.0)
        assert exact.tensors["face"].all()
    (take,) = Windows(path, fine, length=6.0)
    assert 24 <= take.tensors["face"].sum() < 30
    np.testing.assert_allclose(take.tensors["squares"], exact.tensors["squares"], atol=1.1)
    for each in Windows(path, fine, length=3.0, hop=1.0):
        times, squares = exact.tensors["times"], exact.tensors["squares"]
        for axis in range(3):
            expected = np.interp(each.tensors["times"], times, squares[:, axis])
            # Boxes are of whole pixels.
            np.testing.assert_allclose(each.tensors["squares"][2:-2, axis], expected[2:-2], atol=1.1)


@pytest.mark.parametrize(("shown", "there"), [([1, 0, 1, 0], True), ([1, 0, 0, 0], False)])
def test_who_is_in_half_of_the_pictures_that_were_searched(shown: list[int], there: bool) -> None:
    nothing, box = np.zeros((4, 4, 3), np.uint8), np.array([0, 0, 2, 2, 0.9])
    pictures = []
    for second, seen in enumerate(shown):
        pictures.append(Picture(second, nothing, {5: box} if seen else {}))
        pictures.append(Picture(second + 0.5, nothing, None))
    (window,) = Preparer(SIGHT, 3.0).prepare(Span(0, 3), pictures, None)
    assert (window.face, window.person) == (there, 5 if there else None)


def test_points_of_another_video_are_refused_by_name(film: Film, tmp_path: Path) -> None:
    path = film(10.0)
    times = np.arange(60) / 15
    table = write_track(tmp_path / "other.csv", times, np.ones(60, bool))
    with pytest.raises(MediaError, match=r"other\.csv is no track of this video \(96 x 48, 150 pictures\)"):
        list(Windows(path, SIGHT, openface=table))


def test_a_track_without_points_leaves_the_face_to_the_detector(
    film: Film, tmp_path: Path, spots: Any
) -> None:
    path = film(7.0)
    table = write_track(tmp_path / "film.csv", np.arange(105) / 15, np.ones(105, bool), points=False)
    plain = list(Windows(path, SIGHT))
    looked = spots.looked
    for given in (table, write_means(tmp_path / "means.csv", "film")):
        for each, other in zip(plain, Windows(path, SIGHT, openface=given), strict=True):
            np.testing.assert_array_equal(each.tensors["video"], other.tensors["video"])
    assert spots.looked == 3 * looked > 0


def write_means(path: Path, name: str) -> Path:
    return csv(path, {"name": [name], **{unit: [0.5] for unit in ACTION_UNITS}})


def test_clip_means_tell_of_one_window_only(film: Film, tmp_path: Path) -> None:
    means = write_means(tmp_path / "means.csv", "film")
    preparation = Preparation(modalities=("openface",))
    (found,) = Windows(film(5.0), preparation, openface=means)
    assert found.face and found.tensors["openface"].shape == (1, 35)
    long = film(10.0)
    for length, hop in ((None, 1.0), (3.0, 20.0)):
        with pytest.raises(InputError, match=r"has one mean of film\.mkv, which is 10\.0 s long"):
            Windows(long, preparation, length=length, hop=hop, openface=means)
    (found,) = Windows(long, preparation, length=12.0, openface=means)
    assert found.face


def test_a_track_of_one_person_tells_nothing_of_everyone(film: Film, tmp_path: Path) -> None:
    path = film(5.0)
    table = write_track(tmp_path / "film.csv", np.arange(75) / 15, np.ones(75, bool))
    with pytest.raises(InputError, match="track of one person: expected no --openface with --all-faces"):
        Windows(path, SIGHT, everyone=True, openface=table)


def test_a_model_of_sound_needs_no_track(film: Film, tmp_path: Path) -> None:
    (found,) = Windows(film(5.0), SOUND, openface=tmp_path / "nowhere.csv")
    assert found.face is None and found.speech
    with pytest.raises(MediaError, match="nowhere"):
        Windows(film(5.0), SIGHT, openface=tmp_path / "nowhere.csv")


def test_sound_that_lost_too_much_is_refused_at_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even where the last window ends with the last sample, or before."""
    path = write_audio(tmp_path / "sound.wav", np.zeros(10 * RATE, np.float32), RATE)

    def stream_sound(path: Path, scan: Scan) -> Iterator[tuple[int, np.ndarray]]:
        for _ in range(10):
            yield RATE, np.zeros(RATE, np.float32)
        raise MediaError("broken", "too much was lost")

    monkeypatch.setattr(windows, "stream_sound", stream_sound)
    for length, hop, count in ((2.0, 1.0, 9), (2.0, 5.0, 3), (12.0, 1.0, 0), (2.9, 0.3, 25)):
        found = []
        with pytest.raises(MediaError, match="too much was lost"):
            for each in Windows(path, SOUND, length=length, hop=hop):
                found.append(each)
        assert len(found) == count


def test_before_the_first_picture_there_is_no_face(film: Film, spots: Any) -> None:
    """A camera switched on after 8 s; a short file whose pictures fill less than half of it, too."""
    path = film(12.0, times=[8 + at / 15 for at in range(60)])
    found = list(Windows(path, SMALL, length=2.95, hop=1.0))
    assert [each.face for each in found] == [each.span.start + 2.95 / 2 > 7.9 for each in found]
    assert all(each.speech for each in found) and found[0].span.start == 0
    (whole,) = Windows(film(5.0, name="short.mkv", times=[3 + at / 15 for at in range(30)]), SMALL)
    assert whole.face is False and whole.speech
    (whole,) = Windows(film(5.0, name="early.mkv", times=[2 + at / 15 for at in range(45)]), SMALL)
    assert whole.face and whole.speech
