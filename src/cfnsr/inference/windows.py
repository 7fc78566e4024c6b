"""A file of any length -> windows, each prepared as a training clip is, in memory that does not grow."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache, cached_property
from itertools import repeat
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cfnsr.corpus.take import Take
from cfnsr.data import clip
from cfnsr.data.clip import loud
from cfnsr.errors import InputError
from cfnsr.features.preparation import Preparation
from cfnsr.media import face
from cfnsr.media.container import USUAL, Streams, scan_packets
from cfnsr.media.decode import nearest, spread, stream_pictures, stream_sound
from cfnsr.media.errors import MediaError
from cfnsr.media.mfcc import LEAST_SOUND
from cfnsr.media.openface import OpenFaceTrack, is_means
from cfnsr.media.prefetch import mapped
from cfnsr.processes import cores

LONGEST_TAKE = 6.0  # seconds; a file no longer than this is one window, as a take was in training
HOP = 1.0  # seconds from one window to the next
LONGEST = 30.0  # seconds of a window, and from one to the next
LEAST_HEARD = 1.0  # seconds of a window, besides what is left out of its sound at the start
LEAST_HOP = 0.1
REST = 0.1  # seconds at the end that need no window of their own
STALE = 0.5  # seconds from the nearest picture from which on there is none
LONGEST_SIDE = 1920  # pixels; larger pictures of long files are shrunk, for a window's are held at once
SEARCH = 0.25  # seconds, in each of which one picture of a long file is searched for faces
READ_AHEAD = 4  # pictures that are decoded while those before are searched for faces
SWITCH = 1.5  # how much larger another face must be before the main person changes


class Span(NamedTuple):
    """Begin and end of a window, in seconds."""

    start: float
    end: float


class Picture(NamedTuple):
    """A picture of a window: second, (H, W, 3) uint8 RGB, and whose face is where, if it was searched."""

    time: float
    frame: NDArray[np.uint8]
    found: Mapping[int, NDArray[np.floating]] | None


@dataclass(frozen=True)
class Stretch:
    """One person in one window: the tensors of a clip, as far as there are pictures and sound.

    Args:
        tensors: as `prepare_clip` makes them; of a missing modality there are none.
        face: whether a face was found in at least half of the pictures; None where none were asked for.
        speech: whether the sound is louder than silence; None where none was asked for.
        person: number of the face that is followed; None where nobody is.
    """

    span: Span
    tensors: Mapping[str, np.ndarray]
    face: bool | None
    speech: bool | None
    person: int | None = None


def spans(duration: float, preparation: Preparation, length: float | None, hop: float) -> list[Span]:
    """Lay out the windows of a file.

    Args:
        preparation: says how much sound a clip has, which is the length of a window if none is given.
        length: of a window in seconds; None makes a file of a take's length one window.
        hop: from one window to the next, in seconds.

    Raises:
        InputError: a length or a hop that no window can have.

    >>> spans(5.0, Preparation(), None, 1.0), len(spans(10.0, Preparation(), None, 1.0))
    ([Span(start=0.0, end=5.0)], 8)
    """
    usual = preparation.skip + preparation.keep
    shortest, longest = preparation.skip + LEAST_HEARD, max(LONGEST, usual)
    if length is not None and not shortest <= length <= longest:
        raise InputError(f"--window is {length:g} s: expected {shortest:g} to {longest:g}")
    if not LEAST_HOP <= hop <= LONGEST:
        raise InputError(f"--hop is {hop:g} s: expected {LEAST_HOP:g} to {LONGEST:g}")
    long = usual if length is None else length
    if duration <= (max(LONGEST_TAKE, usual) if length is None else long):
        return [Span(0.0, duration)]
    return _side_by_side(duration, long, hop)


def _side_by_side(duration: float, long: float, hop: float) -> list[Span]:
    last = duration - long
    starts = np.arange(int(last / hop) + 1) * hop
    if last - starts[-1] > REST + 1e-9:  # the end is read too
        starts = np.append(starts, last)
    return [Span(float(start), float(start + long)) for start in starts]


class Windows:
    """The windows of a file, in order; iterate over it once.

    Args:
        preparation: how clips were made for the model; its modalities are what the model reads.
        length: of a window in seconds; None makes a file of a take's length one window.
        hop: from one window to the next, in seconds.
        everyone: follow each face, not only the largest.
        openface: the file's OpenFace track, or a table of clip means.
        tolerant: go on without pictures or without sound where the file has none.
        threads: of the decoder; 0 lets it choose.
        streams: which of the file's streams, where it has several; those of the preparation are the corpus's.

    Raises:
        MediaError: the file is broken, or has no pictures or no sound.
        InputError: no such windows; clip means for more than one; everyone by one person's track.
    """

    def __init__(
        self,
        file: Path,
        preparation: Preparation,
        *,
        length: float | None = None,
        hop: float = HOP,
        everyone: bool = False,
        openface: Path | None = None,
        tolerant: bool = False,
        threads: int = 0,
        streams: Streams = USUAL,
    ) -> None:
        self.file, self.preparation, self.everyone, self.threads = file, preparation, everyone, threads
        self.tolerant = tolerant
        self.scan = scan_packets(file, streams)
        self.sees = bool(preparation.of_file("video"))
        self.hears = bool(preparation.of_file("audio"))
        self.pictured = self.sees and self.scan.frame_count > 0
        self.sounding = self.hears and self.scan.sample_rate > 0
        if self.sees and not self.pictured and not (tolerant and self.sounding):
            raise MediaError(
                "no picture", f"{file} has no pictures: give a video, or choose a model of sound"
            )
        if self.hears and not self.sounding and not (tolerant and self.pictured):
            raise MediaError(
                "no sound", f"{file} has no sound: give a recording with sound, or choose a model of pictures"
            )
        self.spans = spans(self.scan.duration, preparation, length, hop)
        if length is None and len(self.spans) == 1:
            self.spans = self._speaks_late(hop) or self.spans
        self.length = self.spans[0].end  # of each window
        self.whole = self.spans == [Span(0.0, self.scan.duration)]  # prepared just as a take is
        self.shrunk = 1.0 if self.whole else max(1.0, self.scan.side / LONGEST_SIDE)
        self.tracked = bool(preparation.of_file("openface"))
        self.openface = openface if self.sees or self.tracked else None
        self.track = None if self.openface is None else self._read_track(self.openface)
        self._main: int | None = None
        a_window = math.ceil(self.length / max(SEARCH, self.length / preparation.frames))  # in searches
        self._followed = face.Follower(forget=preparation.frames if self.whole else a_window)

    def __len__(self) -> int:
        return len(self.spans)

    def __iter__(self) -> Iterator[Stretch]:
        sound = self._sound()
        yield from self._prepared(range(len(self.spans)), sound)
        if sound is not None:
            for _ in sound.parts:  # at the end this raises if too much could not be decoded
                pass

    def one(self, place: int) -> list[Stretch]:
        """Prepare a single window instead of iterating, with the same result in little time.

        Only the window before is prepared too, so the main person is the one of there, not of all since the
        beginning.

        Args:
            place: in `spans`.
        """
        near = range(max(0, place - 1), place + 1)
        return [each for each in self._prepared(near, self._sound()) if each.span == self.spans[place]]

    def _sound(self) -> _Sound | None:
        return _Sound(stream_sound(self.file, self.scan)) if self.sounding else None

    def _prepared(self, places: range, sound: _Sound | None) -> Iterator[Stretch]:
        pictures = self._pictures(places) if self.pictured else repeat([])
        for span in self.spans[places.start : places.stop]:
            tensors: Mapping[str, np.ndarray] = {}
            speech = False if self.hears else None
            if sound is not None:
                part = sound.cut(span.start, math.inf if self.whole else self.length)
                tensors = heard(part, sound.rate, self.preparation, self.threads)
                if self.whole and not tensors and not self.tolerant:
                    self._refuse_short(len(part) / sound.rate)
                speech = bool(tensors) and loud(part, sound.rate, self.preparation)
            # Unnamed here, so that no window's pictures are held while the next one's are read.
            yield from self._stretches(span, next(pictures), tensors, speech)

    def _refuse_short(self, seconds: float) -> None:
        least = self.preparation.skip + LEAST_SOUND
        raise MediaError(
            "too short",
            f"{self.file} has {seconds:.2f} s of sound: expected at least {least:g} s, because the first "
            f"{self.preparation.skip:g} s are left out; give a longer recording",
        )

    def _speaks_late(self, hop: float) -> list[Span]:
        """Windows of a file of a take's length, if the part of it that a take uses is silent."""
        usual = self.preparation.skip + self.preparation.keep
        sound = self._sound()
        if sound is None or self.scan.duration <= usual:
            return []
        samples, rate = sound.cut(0.0, math.inf), sound.rate
        later = _side_by_side(self.scan.duration, usual, hop)
        parts = [samples[round(span.start * rate) : round(span.end * rate)] for span in later]
        heard_later = [loud(part, rate, self.preparation) for part in parts]
        return later if any(heard_later) and not loud(samples, rate, self.preparation) else []

    def _read_track(self, path: Path) -> OpenFaceTrack | None:
        if is_means(path):
            if not self.tracked:
                return None
            if not self.whole:
                raise InputError(
                    f"{path} has one mean of {self.file.name}, which is {self.scan.duration:.1f} s long: "
                    "expected OpenFace's track of it, a row for each picture"
                )
        elif self.everyone:
            raise InputError(f"{path} is the track of one person: expected no --openface with --all-faces")
        take = Take(self.file.stem, "", 0, openface=path)
        return clip.read_track(take, path, points_only=not self.tracked)

    def _numbers(self, span: Span) -> NDArray[np.int64]:
        """Numbers of the file's pictures that a window shows; none where there are none at that time."""
        times, preparation = self.scan.times, self.preparation
        if self.whole:
            few = clip.shown(times) < face.LEAST_FOUND * self.scan.duration
            return spread(0 if few else len(times), preparation.frames, preparation.sampling)
        return sampled(times, span, self.length, preparation, usual=self._usual)

    def _pictures(self, places: range) -> Iterator[list[tuple[int, Picture]]]:
        """Pictures of each window with their numbers; each is decoded and searched for faces once."""
        wanted = self._wanted[places.start : places.stop]
        stream = self._searched(np.unique(np.concatenate(wanted)))
        kept: dict[int, Picture] = {}
        for window in wanted:
            if not len(window):
                yield []
                continue
            kept = {number: picture for number, picture in kept.items() if number >= window[0]}
            while window[-1] not in kept:
                number, picture = next(stream)
                if number >= window[0]:
                    kept[number] = picture
                del picture
            yield [(number, kept[number]) for number in window.tolist()]

    def _searched(self, numbers: NDArray[np.int64]) -> Iterator[tuple[int, Picture]]:
        """Search some pictures for faces, several at once; yields their numbers and who is in them."""
        times = self.scan.times[numbers]
        due = np.isin(numbers, self._due)
        frames = stream_pictures(self.file, self.scan, numbers, shrunk=self.shrunk, threads=self.threads)
        pictures = zip(numbers.tolist(), times.tolist(), due.tolist(), frames, strict=True)
        for number, time, frame, faces in mapped(_search, pictures, _pool(), READ_AHEAD):
            yield number, Picture(time, frame, None if faces is None else self._followed.add(faces))

    @cached_property
    def _usual(self) -> float:
        """Seconds from one picture to the next."""
        return clip.usual_step(self.scan.times)

    @cached_property
    def _wanted(self) -> list[NDArray[np.int64]]:
        """Numbers of the file's pictures that each window shows."""
        return [self._numbers(span) for span in self.spans]

    @cached_property
    def _due(self) -> NDArray[np.int64]:
        """Numbers of the pictures of all windows that are searched for faces."""
        if self.tracked or (self.track is not None and self.track.landmarks is not None):
            return np.empty(0, np.int64)
        numbers = np.unique(np.concatenate(self._wanted))
        every = self.whole or self.preparation.sampling != "even"
        return numbers if every else numbers[searched(self.scan.times[numbers])]

    def _stretches(
        self,
        span: Span,
        seen: Sequence[tuple[int, Picture]],
        sound: Mapping[str, np.ndarray],
        speech: bool | None,
    ) -> Iterator[Stretch]:
        if not self.sees and not self.tracked:
            yield Stretch(span, sound, None, speech)
            return
        people = self._tracked(span) if self.tracked else self._people(seen)
        for person, tensors in people:
            yield Stretch(span, {**sound, **tensors}, True, speech, person)
        if not people:
            yield Stretch(span, sound, False, speech)

    def _tracked(self, span: Span) -> list[tuple[int | None, dict[str, np.ndarray]]]:
        """Rows of the OpenFace track in a window, where there is a face in half of them."""
        track = self.track
        assert track is not None  # noqa: S101 - asked for
        rows = np.arange(len(track.success))
        if not self.whole:
            # OpenFace counts from the first picture.
            times = track.timestamps + (self.scan.times[0] if self.scan.frame_count else 0.0)
            rows = np.flatnonzero((times >= span.start) & (times < span.end))
        part = track.rows(rows)
        if not len(rows) or part.success.mean() < face.LEAST_FOUND:
            return []
        return [(None, clip.track_tensors(part, self.preparation))]

    def _people(self, seen: Sequence[tuple[int, Picture]]) -> list[tuple[int | None, dict[str, np.ndarray]]]:
        """Cut out the faces of a window."""
        if not seen:
            return []
        if self.track is not None and self.track.landmarks is not None:
            return self._by_points(seen)
        pictures = [picture for _, picture in seen]
        people = main_first(present(pictures), self._main)
        if not people:
            return []
        self._main = people[0][0]
        told = people if self.everyone else people[:1]
        return [(person, self._unshrunk(cut(pictures, track, self.preparation))) for person, track in told]

    def _unshrunk(self, tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Convert squares to pixels of the file's own pictures, as shown."""
        if self.shrunk == 1:
            return tensors
        return {**tensors, "squares": tensors["squares"] * np.float32(self.shrunk)}

    def _by_points(
        self, seen: Sequence[tuple[int, Picture]]
    ) -> list[tuple[int | None, dict[str, np.ndarray]]]:
        assert self.track is not None and self.openface is not None  # noqa: S101
        points = clip.shown_points(self.track.at(np.array([number for number, _ in seen])), self.scan.pixel)
        frames = [picture.frame for _, picture in seen]
        times = np.array([picture.time for _, picture in seen])
        if points.success.mean() < face.LEAST_FOUND:
            return []
        if points.landmarks is not None:
            points = replace(points, landmarks=points.landmarks / self.shrunk)
        height, width = frames[0].shape[:2]
        clip.check_points(self.openface, points, self.track, (height, width, self.scan.frame_count))
        settings = self.preparation
        faces = face.cut_faces(frames, times, points, margin=settings.margin, size=settings.size)
        return [(None, self._unshrunk(clip.picture_tensors(faces, times, settings)))]


def searched(times: NDArray[np.floating]) -> NDArray[np.bool_]:
    """True where a picture at `times`, rising seconds, is searched for faces: the first in each `SEARCH`.

    A face moves little until the next one, and its square is smoothed over longer: on real clips it was off
    by at most 1 % of its side.
    """
    first: NDArray[np.bool_] = np.diff(np.floor(times / SEARCH), prepend=-np.inf) > 0
    return first


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(cores(), thread_name_prefix="search for faces")


def _search(
    picture: tuple[int, float, bool, NDArray[np.uint8]],
) -> tuple[int, float, NDArray[np.uint8], NDArray[np.floating] | None]:
    """Search a picture for faces, if that is due."""
    number, time, due, frame = picture
    return number, time, frame, clip.detector().detect(frame) if due else None


def sampled(
    times: NDArray[np.floating], span: Span, length: float, preparation: Preparation, usual: float = 0.0
) -> NDArray[np.int64]:
    """Positions of the pictures at `times`, rising seconds, that a window shows.

    Args:
        times: (N,) of at least one.
        length: of all windows in seconds.
        usual: seconds between pictures, where that is known.

    Returns:
        (frames,) positions; (0,) where there are no pictures at that time.
    """
    frames = preparation.frames
    # On a grid, so that windows that overlap have the same pictures, and each is searched once.
    step = length / frames
    grid = (round(span.start / step) + np.arange(frames)) * step
    numbers = nearest(times, grid)
    there = np.abs(times[numbers] - grid) <= max(STALE, usual)
    if there.mean() < face.LEAST_FOUND:
        return numbers[:0]
    if preparation.sampling == "consecutive":
        first, stop = np.searchsorted(times, [span.start, span.end]).tolist()
        first = max(0, min(first, stop - 1))  # the one before is still shown where none begins here
        return np.int64(first) + spread(stop - first, frames, preparation.sampling)
    return numbers


def heard(
    sound: NDArray[np.float32], rate: int, preparation: Preparation, threads: int = 0
) -> dict[str, np.ndarray]:
    """Tensors of a window's sound (N,) at `rate` Hz; none where it is too short."""
    if len(sound) < LEAST_SOUND * rate:
        return {}
    try:
        return clip.sound_tensors(sound, rate, preparation, threads)
    except MediaError:
        return {}


def heard_at(span: Span, preparation: Preparation) -> Span:
    """Begin and end of the sound of a window that a model reads, in seconds.

    >>> heard_at(Span(3.0, 9.0), Preparation())
    Span(start=3.5, end=5.95)
    """
    return Span(*preparation.listens(*span))


def present(pictures: Sequence[Picture]) -> list[tuple[int, face.Track]]:
    """People in at least half of the pictures that were searched; the largest face comes first."""
    looked = [picture.found is not None for picture in pictures]
    people = face.people_of([picture.found or {} for picture in pictures])
    return [(person, track) for person, track in people if track.found[looked].mean() >= face.LEAST_FOUND]


def main_first(people: Sequence[tuple[int, face.Track]], before: int | None) -> list[tuple[int, face.Track]]:
    """Order people, the largest face first; a face that is little larger does not displace the one before."""
    stays = [
        (person, track)
        for person, track in people
        if person == before and SWITCH * _side(track) >= _side(people[0][1])
    ]
    first = stays or list(people[:1])
    return first + [each for each in people if each[0] != first[0][0]]


def _side(track: face.Track) -> float:
    return float(np.sqrt(track.boxes[:, 2] * track.boxes[:, 3]).mean())


def cut(pictures: Sequence[Picture], track: face.Track, preparation: Preparation) -> dict[str, np.ndarray]:
    """The tensors of one person in the pictures of a window."""
    frames = [picture.frame for picture in pictures]
    times = np.array([picture.time for picture in pictures])
    faces = face.cut(frames, times, track, margin=preparation.margin, size=preparation.size)
    return clip.picture_tensors(faces, times, preparation)


class _Sound:
    """The sound of a file, of which only what the present window needs is kept."""

    def __init__(self, parts: Iterator[tuple[int, NDArray[np.float32]]]) -> None:
        self.parts = parts
        self.first = 0  # the sample that stands first in what is kept
        self.rate, self.kept = next(parts, (1, np.empty(0, np.float32)))

    def cut(self, start: float, seconds: float) -> NDArray[np.float32]:
        """Cut the samples from a second on, of a length in seconds; windows come in order of their start."""
        begin = round(start * self.rate)
        length = math.inf if math.isinf(seconds) else round(seconds * self.rate)
        waiting, there = [self.kept], self.first + len(self.kept)
        while there < begin + length:
            _, part = next(self.parts, (0, self.kept[:0]))
            if not len(part):
                break
            waiting.append(part)
            there += len(part)
            if there <= begin:  # of a single window late in a long file nothing before it is held
                waiting, self.first = [part[:0]], there
        self.kept = np.concatenate(waiting)[begin - self.first :]
        self.first = begin
        return self.kept[: int(min(length, len(self.kept)))]
