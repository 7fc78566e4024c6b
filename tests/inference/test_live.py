"""Live: the windows of `predict`, always the newest, under a clock that tests move by themselves."""

import io
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

import cfnsr
import cfnsr.inference.live as module
from cfnsr.data import preparer
from cfnsr.data.windows import Span, Windows
from cfnsr.emotions import LabelSet
from cfnsr.errors import InputError
from cfnsr.features.preparation import Preparation
from cfnsr.features.spec import ModelSpec
from cfnsr.inference.live import LAG, Moment, Rolling, live
from cfnsr.inference.live_view import Tally, watch
from cfnsr.inference.recogniser import Recogniser
from cfnsr.inference.timeline import Window
from cfnsr.media.capture import LivePicture, LiveSound, Pace, Player
from cfnsr.media.encode import write_video
from cfnsr.media.errors import MediaError

SMALL = Preparation(frames=10, size=16, skip=0.5, keep=1.0)
LENGTH, STEP = 1.5, 0.15  # seconds of its windows, and from one of their pictures to the next
FPS, RATE, SECONDS = 25, 22_050, 9
PIECE = 0.05  # seconds; a piece of sound is no longer
LEAST = 1e-9  # seconds that a wait takes; less could vanish in rounding
HANGS = 300.0  # real seconds after which a test is given up


class Simulated:
    """A clock that stands still while anyone works, and leaps to the next moment that somebody waits for.

    One thread goes on at a time: whose moment is the earliest; of several the thread of the test goes last.
    """

    def __init__(self, threads: int) -> None:
        self.time, self.threads = 100.0, threads
        self.main = threading.current_thread()
        self.known: set[threading.Thread] = set()
        self.waiting: dict[threading.Thread, tuple[float, threading.Event]] = {}
        self.changed = threading.Condition()

    def now(self) -> float:
        return self.time

    def wait(self, seconds: float, event: threading.Event) -> None:
        me, started = threading.current_thread(), time.monotonic()
        with self.changed:
            self.known.add(me)
            self.waiting[me] = self.time + max(LEAST, seconds), event
            while not event.is_set() and self.next() is not me:
                self.changed.wait(0.001)  # a thread's end and an event are not reported
                assert time.monotonic() - started < HANGS, (self.time, self.known, self.waiting)
            until, _ = self.waiting.pop(me)
            if not event.is_set():
                self.time = max(self.time, until)
            self.changed.notify_all()

    def next(self) -> threading.Thread | None:
        """Who goes on; nobody while others are at work."""
        waiting = {thread: until for thread, (until, _) in self.waiting.items() if thread.is_alive()}
        working = any(thread.is_alive() and thread not in waiting for thread in self.known)
        woken = any(event.is_set() for _, event in self.waiting.values())
        if len(self.known) < self.threads or working or woken:
            return None
        return min(waiting, key=lambda thread: (waiting[thread], thread is self.main, thread.name))


class Stub(Recogniser):
    """A recogniser whose answer depends on every pixel and sample, and takes its time."""

    name, normalised = "stub", False
    labels = LabelSet("test", ("happy", "sad", "angry"))

    def __init__(
        self,
        clock: Simulated | None = None,
        seconds: float = 0.0,
        *,
        preparation: Preparation = SMALL,
        reads: tuple[str, ...] = ("video", "audio"),
        tolerant: bool = False,
    ) -> None:
        self.clock, self.seconds, self.tolerant = clock, seconds, tolerant
        self.reads = {each: each for each in reads}
        self.preparation = preparation
        self.clips: list[dict[str, np.ndarray]] = []

    def probabilities(self, clips: list[dict[str, np.ndarray]]) -> np.ndarray:
        if self.clock is not None and self.seconds:
            self.clock.wait(self.seconds, threading.Event())
        self.clips += clips
        answers = np.array(
            [[each.get("video", np.ones(1)).mean(), 50.0, self.loudness(each)] for each in clips]
        )
        return answers / answers.sum(axis=1, keepdims=True)

    @staticmethod
    def loudness(tensors: dict[str, np.ndarray]) -> float:
        return float(np.abs(tensors["audio"]).mean()) if "audio" in tensors else 1.0


class Detector:
    """Finds the white squares of a picture, and may take its time."""

    def __init__(self, clock: Simulated | None = None, seconds: float = 0.0) -> None:
        self.clock, self.seconds = clock, seconds

    def detect(self, frame: np.ndarray) -> np.ndarray:
        if self.clock is not None:
            self.clock.wait(self.seconds, threading.Event())
        bright = (frame.mean(axis=2) > 128).astype(np.uint8)
        _, _, boxes, _ = cv2.connectedComponentsWithStats(bright)
        return np.array([[*box[:4], 0.9] for box in boxes[1:]], np.float32).reshape(-1, 5)


@pytest.fixture(autouse=True)
def detector(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    if "yunet" not in request.fixturenames:
        monkeypatch.setattr(preparer, "detector", cache(Detector))


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    assert not threads()


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("cfnsr")]


def picture(second: float) -> np.ndarray:
    """A white square that moves over a brightening grey, and one that grows; none from 4 to 6 s."""
    frame = np.full((96, 96, 3), 40 + 3 * second, np.uint8)
    if not 4 <= second < 6:
        x, side = 4 + round(6 * second), 8 + round(4 * second)
        frame[20:44, x : x + 18] = 230
        frame[50 : 50 + side, 30 : 30 + side] = 240
    return frame


def noise(seconds: float, rate: int = RATE) -> np.ndarray:
    """Noise that grows; from 6.5 to 8.5 s there is silence."""
    count = round(seconds * rate)
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, count) * np.linspace(0.2, 1, count)
    samples[round(6.5 * rate) : round(8.5 * rate)] = 0
    return samples.astype(np.float32)


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    frames = [picture(number / FPS) for number in range(SECONDS * FPS)]
    return write_video(tmp_path_factory.mktemp("film") / "film.mp4", frames, FPS, noise(SECONDS), RATE)


class Scripted:
    """A source of pictures and sound until some seconds; a stream may stay on without giving any more."""

    name, dropped, begun = "script", 0, False

    def __init__(
        self,
        *,
        pictures: float = 10.0,
        sound: float = 10.0,
        stays: bool = False,
        begin: float = 0.0,
        error: BaseException | None = None,
    ) -> None:
        self.last_picture, self.last_sound = pictures, sound
        self.stays, self.begin, self.error = stays, begin, error
        self.has_video, self.has_audio = pictures > 0, sound > 0

    def pictures(self, step: float, pace: Pace) -> Iterator[LivePicture]:
        for second in np.arange(self.begin, self.last_picture, 0.05).tolist():
            if not pace.until(second):
                return
            yield LivePicture(second, second, picture(second % 4))
        if self.error is not None:
            raise self.error
        if self.stays:
            pace.until(1e9)

    def sound(self, pace: Pace) -> Iterator[LiveSound]:
        for first in range(0, round(self.last_sound * 8000), 400):
            samples = np.full(400, 0.1 * (-1) ** (first // 400), np.float32)
            end = (first + 400) / 8000
            if not pace.until(end):
                return
            yield LiveSound(first, end, 8000, samples)


def play(
    recogniser: Stub, source: Player | Scripted, clock: Simulated, **settings: object
) -> tuple[list[Moment], list[Moment]]:
    """All moments, and those with an answer."""
    moments = list(live(recogniser, source, clock=clock, **settings))  # type: ignore[arg-type]
    return moments, [moment for moment in moments if moment.window is not None]


def spans(moments: list[Moment]) -> list[Span]:
    return [Span(each.window.start, each.window.end) for each in moments if each.window is not None]


def check_against_predict(
    film: Path,
    preparation: Preparation,
    clock: Simulated,
    *,
    reads: tuple[str, ...] = ("video", "audio"),
    tolerant: bool = False,
    seconds: float = 0.0,
) -> list[Window]:
    """The windows, once they have been found to be made of the same tensors as predict's, bit for bit."""
    recogniser, other = (Stub(preparation=preparation, reads=reads, tolerant=tolerant) for _ in range(2))
    recogniser.clock, recogniser.seconds = clock, seconds
    _, answers = play(recogniser, Player(film), clock)
    preparer.detector().clock = None  # type: ignore[attr-defined]
    windows = Windows(film, preparation, length=LENGTH, tolerant=tolerant)
    windows.spans = spans(answers)
    expected = [window for _, window in other.recognise(windows)]
    assert [each.window for each in answers] == expected
    assert len(recogniser.clips) == len(other.clips)
    for mine, theirs in zip(recogniser.clips, other.clips, strict=True):
        assert mine.keys() == theirs.keys()
        for name in mine:
            np.testing.assert_array_equal(mine[name], theirs[name], err_msg=name)
    return expected


BOTH = ("video", "audio")


@pytest.mark.parametrize(
    ("reads", "sampling", "tolerant"),
    [
        (BOTH, "even", False),
        (BOTH, "consecutive", True),
        (("video",), "even", False),
        (("audio",), "even", False),
    ],
)
def test_a_window_is_that_of_predict(
    film: Path, reads: tuple[str, ...], sampling: Any, tolerant: bool
) -> None:
    preparation = replace(SMALL, sampling=sampling, modalities=reads)
    clock = Simulated(1 + len(reads))
    windows = check_against_predict(film, preparation, clock, reads=reads, tolerant=tolerant)
    assert len(windows) >= 17 and windows[-1].end == pytest.approx(SECONDS, abs=1.5 * STEP)
    for modality, found in (("video", "face"), ("audio", "speech")):
        there = {getattr(window, found) for window in windows}
        assert there == ({True, False} if modality in reads else {None})
    alone: set[tuple[str, ...]] = {("audio",), ("video",)} if tolerant else {()}
    assert {window.uses for window in windows} == {reads, *alone}


@pytest.mark.parametrize("seconds", [0.0, 0.5])
def test_a_window_is_that_of_predict_where_the_search_for_faces_is_slow(
    film: Path, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    clock = Simulated(3)
    monkeypatch.setattr(preparer, "detector", cache(lambda: Detector(clock, 0.07)))
    assert len(check_against_predict(film, SMALL, clock, seconds=seconds)) > 8


def test_a_fast_model_answers_every_window_when_it_is_there(film: Path) -> None:
    moments, answers = play(Stub(), Player(film), Simulated(3))
    ends = [each.second for each in answers]
    np.testing.assert_allclose(np.diff(ends)[:-1], 3 * STEP)  # 0.4 s in whole steps
    assert all(each.window is not None and each.window.end == pytest.approx(each.second) for each in answers)
    assert {(each.dropped, each.skipped) for each in moments} == {(0, 0)}
    assert max(each.delay for each in answers if each.delay is not None) <= STEP
    assert answers[0].second == pytest.approx(LENGTH)
    # Until then it listens.
    listening = [each for each in moments if each.missing]
    assert moments[: len(listening)] == listening
    np.testing.assert_allclose([each.second for each in listening], [0.45, 0.9, 1.35])
    np.testing.assert_allclose([each.missing for each in listening], [1.05, 0.6, 0.15])
    assert {(each.window, each.delay, each.square) for each in listening} == {(None, None, None)}


def test_a_slow_model_passes_windows_over_and_never_falls_behind(film: Path) -> None:
    clock = Simulated(3)
    _, answers = play(Stub(clock, 1.3, tolerant=True), Player(film), clock)
    ends = np.array([each.second for each in answers])
    # One is at work for 1.3 s; the next one takes what is newest then, on the grid of the pictures.
    assert np.diff(ends)[:-1].min() >= 1.3 - STEP and np.diff(ends).max() <= 1.3 + STEP + PIECE
    delays = [each.delay for each in answers if each.delay is not None]
    assert len(delays) == len(answers) and min(delays) >= 1.3 and max(delays[:-1]) <= 1.3 + STEP + PIECE
    assert delays[-1] <= 2 * 1.3  # for it came last, while the one before was at work
    passed_over = ((np.diff(ends) - 3 * STEP + 1e-9) // (3 * STEP)).clip(min=0)
    assert answers[-1].skipped == passed_over.sum() > 5
    assert answers[-1].dropped == 0  # each picture was looked at, in one window or another


def test_pictures_that_nobody_had_time_for_are_dropped_and_counted() -> None:
    clock, source = Simulated(3), Scripted(pictures=40.0, sound=40.0)
    _, answers = play(Stub(clock, 5.0), source, clock)
    delays = [each.delay for each in answers if each.delay is not None]
    assert min(delays) >= 5.0 and max(delays[:-1]) <= 5.0 + STEP + PIECE
    # Of 20 pictures a second those of LENGTH + LAG + STEP are kept; an answer takes 5 s.
    assert answers[-1].dropped == pytest.approx(
        (len(answers) - 1) * 20 * (5.0 - LENGTH - LAG - STEP), rel=0.1
    )


@pytest.mark.parametrize("seconds", [0.0, 7.0])
def test_what_is_kept_does_not_grow(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    sizes = []

    class Watched(Rolling):
        def _reach(self, *reached: Any) -> None:
            super()._reach(*reached)
            sizes.append((len(self._pictures), sum(len(part.samples) for part in self._sound)))

    monkeypatch.setattr(module, "Rolling", Watched)
    kept = LENGTH + LAG + STEP
    clock = Simulated(3)
    pictures = []
    listener = module.LiveWindows(Stub(clock, seconds), Scripted(pictures=30, sound=30), LENGTH, 0.4, clock)
    for _ in listener.moments(lambda moment: pictures.append(len(listener.pictures))):
        pass
    most, samples = np.array(sizes).max(axis=0)
    assert most <= 20 * kept + 2 and samples <= 8000 * (kept + 0.06)
    assert max(pictures) <= 20 * kept + 2
    assert listener.preparer._follower.forget == 6, "searches in a window of 1.5 s"


def test_a_stream_that_stays_away_is_waited_for_half_a_second_alone() -> None:
    clock, source = Simulated(3), Scripted(pictures=5.0, sound=12.0, stays=True)
    moments = live(Stub(tolerant=True), source, clock=clock)
    answers = [each for each in (next(moments) for _ in range(25)) if each.window is not None]
    moments.close()
    frozen = [each for each in answers if each.second > 5.0]
    assert len(frozen) > 5
    np.testing.assert_allclose(np.diff([each.second for each in frozen]), 3 * STEP)
    late = [each.delay for each in frozen if each.second > 5 + LAG]
    assert max(late) <= LAG + STEP + PIECE  # type: ignore[type-var]
    # Half of a window's pictures are too far from the last one, a second being the most.
    seen = [each.window.face for each in frozen if each.window is not None]
    assert seen[0] is True and seen[-1] is False and sorted(seen, reverse=True) == seen
    assert frozen[-1].window is not None and frozen[-1].window.uses == ("audio",)


def test_the_first_window_begins_when_all_has_begun() -> None:
    _, answers = play(Stub(), Scripted(begin=2.0), Simulated(3))
    assert answers[0].window is not None and answers[0].window.start == pytest.approx(
        2.1
    )  # a multiple of the step


@pytest.mark.parametrize(("every", "steps"), [(0.1, 1), (1.0, 7), (3.0, 20)])
def test_every(every: float, steps: int) -> None:
    _, answers = play(Stub(), Scripted(), Simulated(3), every=every)
    ends = [each.second for each in answers]
    np.testing.assert_allclose(np.diff(ends)[:-1], steps * STEP)
    assert ends[0] == pytest.approx(LENGTH)


def test_another_length() -> None:
    recogniser = Stub()
    _, answers = play(recogniser, Scripted(), Simulated(3), window=2.0)
    assert all(span.end - span.start == pytest.approx(2.0) for span in spans(answers))
    np.testing.assert_allclose(np.diff(recogniser.clips[0]["times"]), 0.2)  # 20 pictures a second


@pytest.mark.parametrize("reads", [("video",), ("audio",)])
def test_a_model_of_one_modality_opens_that_alone(reads: tuple[str, ...]) -> None:
    source = Scripted(pictures=6.0 if "video" in reads else 0.0, sound=6.0 if "audio" in reads else 0.0)
    source.has_video = source.has_audio = True
    _, answers = play(Stub(preparation=replace(SMALL, modalities=reads), reads=reads), source, Simulated(2))
    assert len(answers) > 5 and all(each.window is not None and each.window.uses == reads for each in answers)


def test_the_square_is_that_of_the_newest_picture() -> None:
    recogniser = Stub()
    _, answers = play(recogniser, Scripted(), Simulated(3))
    for moment, tensors in zip(answers, recogniser.clips, strict=True):
        assert moment.square == pytest.approx(tensors["squares"][-1])
        second = tensors["times"][-1]
        assert moment.square is not None
        if second >= 4:  # then it jumps back
            break
        # Smoothed, and searched for up to a quarter of a second ago.
        assert moment.square[0] == pytest.approx(4 + round(6 * second) + 9, abs=4.5)
        assert moment.square[1] == pytest.approx(32, abs=0.1)  # not that of the other, which outgrows it


@pytest.mark.parametrize(("sampling", "count"), [("even", 16), ("consecutive", 78)])
def test_a_picture_in_a_quarter_of_a_second_is_searched(
    monkeypatch: pytest.MonkeyPatch, sampling: str, count: int
) -> None:
    """Where pictures may be close together; the first of each."""
    looked = []

    class Counting(Detector):
        def detect(self, frame: np.ndarray) -> np.ndarray:
            looked.append(frame.tobytes())
            return super().detect(frame)

    monkeypatch.setattr(preparer, "detector", cache(Counting))
    recogniser = Stub(preparation=replace(SMALL, sampling=sampling))  # type: ignore[arg-type]
    play(recogniser, Scripted(pictures=3.9, sound=3.9), Simulated(3))
    assert len(looked) == count


def test_answers_are_reported_before_they_are_handed_on() -> None:
    heard: list[Moment] = []
    for moment in live(Stub(), Scripted(), clock=Simulated(3), on_answer=heard.append):
        assert (moment.window is None) == (not heard or heard[-1] is not moment)


def test_closing_ends_the_threads() -> None:
    moments = live(Stub(), Scripted(stays=True), clock=Simulated(3))
    assert not threads()  # nothing begins before it is asked for
    next(moments)
    assert sorted(threads()) == ["cfnsr audio", "cfnsr video"]
    moments.close()
    assert not threads()


def test_what_stops_the_model_ends_the_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    recogniser = Stub()

    def fail(clips: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(recogniser, "probabilities", fail)
    with pytest.raises(KeyboardInterrupt):
        play(recogniser, Scripted(), Simulated(3))


def test_an_error_of_a_reader_reaches_the_caller() -> None:
    answers, error = [], MediaError("missing", "camera 1 is gone")
    with pytest.raises(MediaError, match="camera 1 is gone"):
        for moment in live(Stub(), Scripted(pictures=4.0, error=error), clock=Simulated(3)):
            answers.append(moment)
    assert answers[-1].window is not None and answers[-1].second == pytest.approx(4.0, abs=0.5)


def test_a_source_that_ends_too_early() -> None:
    with pytest.raises(MediaError, match=r"script ends after 1\.\d+ s: expected at least 1.5 s") as error:
        play(Stub(), Scripted(pictures=1.2, sound=1.2), Simulated(3))
    assert error.value.reason == "too short"
    _, answers = play(Stub(), Scripted(pictures=1.6, sound=1.6), Simulated(3))
    assert len(answers) == 1


def test_a_stream_may_end_before_the_other() -> None:
    _, answers = play(Stub(tolerant=True), Scripted(pictures=3.0, sound=9.0), Simulated(3))
    assert answers[-1].second == pytest.approx(9.0, abs=STEP)
    assert answers[-1].window is not None and answers[-1].window.uses == ("audio",)


def test_what_cannot_be_live() -> None:
    def refused(match: str, recogniser: Stub | None = None, **settings: object) -> None:
        source = settings.pop("source", Scripted())
        with pytest.raises(InputError, match=match):
            live(recogniser or Stub(), source, **settings)  # type: ignore[arg-type]

    openface = Stub(preparation=Preparation(modalities=("openface", "audio")), reads=("openface", "audio"))
    normalised = Stub()
    normalised.normalised = True
    refused("OpenFace tracks", openface)
    refused("speaker-normalisation", normalised)
    refused("--window is 0.7 s: expected", window=0.7)
    refused("--every is 0.05 s: expected 0.1 to 10", every=0.05)
    refused("script has no picture", source=Scripted(pictures=0))
    refused("script has no sound", source=Scripted(sound=0))
    refused("script has no picture", Stub(tolerant=True), source=Scripted(pictures=0, sound=0))


def test_a_tolerant_model_does_without_a_camera() -> None:
    _, answers = play(Stub(tolerant=True), Scripted(pictures=0), Simulated(2))
    assert {(each.window.face, each.window.uses) for each in answers if each.window} == {(False, ("audio",))}


def test_real_clip(shared: Path, yunet: Path) -> None:
    file = shared / "clips/ravdess/Actor_01/01-01-01-01-01-01-01.mp4"
    preparation = Preparation(frames=10, size=80)
    torch.manual_seed(0)
    model = cfnsr.create_model("cfn_sr", width=1 / 8).eval()
    model.config = ModelSpec("cfn_sr", {}, frames=8, size=64, preparation=preparation)  # type: ignore[assignment]
    answers = list(live(model, Player(file), window=1.7, clock=Simulated(3)))
    windows = cfnsr.predict(model, file, window=1.7, hop=2 * 0.17).timeline
    expected = {round(window.start, 6): window for window in windows}
    same = [(each.window, expected.get(round(each.window.start, 6))) for each in answers if each.window]
    assert sum(window is not None for _, window in same) >= 4
    for mine, theirs in same:
        if theirs is not None:
            assert (mine.face, mine.speech, mine.uses) == (theirs.face, theirs.speech, theirs.uses)
            assert mine.probabilities == pytest.approx(theirs.probabilities, abs=1e-5)
    assert any(mine.probabilities is not None for mine, _ in same)


def moment(second: float, happy: float | None = 0.75, **settings: object) -> Moment:
    probabilities = None if happy is None else {"happy": happy, "sad": 1 - happy}
    uses = ("video", "audio") if happy is not None else ()
    window = Window(second - 1.5, second, probabilities, happy is not None, True, uses)
    values = {"window": window, "square": (1.0, 2.0, 3.0), "delay": 0.25, "missing": 0.0}
    return Moment(second, **(values | {"dropped": 2, "skipped": 1} | settings))  # type: ignore[arg-type]


LISTENING = Moment(0.4, None, None, None, 1.1, 0, 0)


def shown(form: str, moments: list[Moment], stop: BaseException | None = None) -> tuple[str, Tally]:
    def given() -> Iterator[Moment]:
        yield from moments
        if stop is not None:
            raise stop

    out = io.StringIO()
    tally = watch(given(), name="film.mp4", emotions=("happy", "sad"), form=form, out=out)  # type: ignore[arg-type]
    return out.getvalue(), tally


def test_json_is_an_object_for_each_moment() -> None:
    text, _ = shown("json", [LISTENING, moment(1.5)])
    first, second = map(json.loads, text.splitlines())
    nothing = dict.fromkeys(("emotion", "window", "square", "delay"))
    assert first == {"second": 0.4, **nothing, "missing": 1.1, "dropped": 0, "skipped": 0}
    assert second["emotion"] == "happy" and second["window"]["probabilities"] == {"happy": 0.75, "sad": 0.25}
    assert [second[key] for key in ("delay", "dropped", "skipped", "square")] == [0.25, 2, 1, [1, 2, 3]]


def test_lines() -> None:
    text, tally = shown("lines", [LISTENING, LISTENING, moment(1.5), moment(2.0, None)])
    first, second, third = text.splitlines()
    assert first == "listening... 1.1 s"
    assert second.split("  ")[-1] == "2 pictures dropped, 1 window skipped" and "happy 75 %" in second
    assert "no face: no answer" in third and "delay 0.25 s" in third
    assert str(tally).startswith("2.0 s: 2 answers, 2.0 a second; delay 0.25 s, at most 0.25 s; 2 pictures")


def test_the_screen_shows_all() -> None:
    text, _ = shown("screen", [moment(1.5), moment(2.0)])
    marks = ("face: yes   speech: yes", "delay 0.25 s, 2.0 answers", "2 pictures dropped, 1 window skipped")
    assert all(expected in text for expected in ("film.mp4  2.0 s", "happy 75 %", " 25 %", *marks))
    text, _ = shown("screen", [LISTENING])
    assert "listening... 1.1 s" in text
    text, _ = shown("screen", [moment(2.0, None)])
    assert "no answer" in text and "face: no   speech: yes" in text


@pytest.mark.parametrize("form", ["screen", "lines", "json"])
def test_ctrl_c_ends_it_as_the_end_does(form: str, capsys: pytest.CaptureFixture[str]) -> None:
    _, tally = shown(form, [moment(1.5)], KeyboardInterrupt())
    assert tally.last is not None and tally.last.second == 1.5
    assert "film.mp4: 1.5 s: 1 answer; delay" in capsys.readouterr().err


def test_an_error_passes_through_the_view() -> None:
    with pytest.raises(MediaError, match="gone"):
        shown("lines", [moment(1.5)], MediaError("missing", "camera is gone"))


def test_the_source_is_left_when_nobody_can_read_on() -> None:
    class Shut(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError(32, "Broken pipe")

    given = live(Stub(), Scripted(stays=True), clock=Simulated(3))
    with pytest.raises(BrokenPipeError) as error:
        watch(given, name="x", emotions=("happy",), form="lines", out=Shut())
    assert error.value.errno == 32 and not threads() and given.gi_frame is None  # closed, not only forgotten
