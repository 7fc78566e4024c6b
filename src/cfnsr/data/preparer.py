"""Pictures and sound of a window -> the tensors of a clip: the rules, and when there is no face or no speech.

They are the same for a take and for a window, so what a prediction has no answer on is no training clip.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache, lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cfnsr.corpus.scan import performance_key
from cfnsr.errors import InputError
from cfnsr.features.base import Feature, Sound
from cfnsr.features.preparation import Preparation
from cfnsr.media import face, openface
from cfnsr.media.decode import nearest, spread
from cfnsr.media.display import display_scale
from cfnsr.media.errors import MediaError
from cfnsr.media.mfcc import LEAST_SOUND
from cfnsr.media.openface import OpenFaceTrack
from cfnsr.media.scan import Scan

STALE = 0.5  # seconds from the nearest picture from which on there is none
SEARCH = 0.25  # seconds, in each of which one picture is searched for faces
SWITCH = 1.5  # how much larger another face must be before the main person changes
SILENCE = 1e-12  # -120 dBFS, so that the logarithm of no sound is finite
# dBFS of the loudest tenth of a second; sound below it counts as silent. The quietest of
# RAVDESS's 1440 takes reaches -56.1.
SPEECH_LEVEL = -60.0
LOUDEST_FOR = 0.1  # seconds
ABSENT = ("no face", "no speech", "too short")  # reasons of a window; others are of the file

Tensors = dict[str, np.ndarray]
Person = tuple[int | None, Tensors]


class Span(NamedTuple):
    """Begin and end of a window, in seconds."""

    start: float
    end: float


class Picture(NamedTuple):
    """A picture of a recording."""

    time: float  #: seconds
    frame: NDArray[np.uint8]  #: (H, W, 3), RGB
    faces: Mapping[int, NDArray[np.floating]] | None  #: box of each person; None where it was not searched
    number: int = 0  #: in the video


@dataclass(frozen=True)
class PreparedWindow:
    """One person in one window.

    Args:
        tensors: as `prepare_clip` makes them; of a missing modality there may be none.
        face, speech: a face was found in at least half of the pictures that were searched, and the sound is
            louder than silence; None where none was asked for.
        person: number of the face that is followed; None where nobody is.
        missing: why there is no face or no speech, by the kind of file: "video", "audio" or "openface".
    """

    span: Span
    tensors: Mapping[str, np.ndarray]
    face: bool | None
    speech: bool | None
    person: int | None = None
    missing: Mapping[str, MediaError] = field(default_factory=dict, compare=False)


@dataclass(frozen=True)
class FaceTrack:
    """OpenFace's track of a video, or its row of a table of clip means."""

    path: Path
    track: OpenFaceTrack
    scan: Scan | None  #: of the video, if there is one

    @property
    def locates(self) -> bool:
        """True if it says where the face is in each picture."""
        return self.track.landmarks is not None and not openface.is_means(self.path)

    def points(self, pictures: Sequence[Picture], shrunk: float, least_found: float) -> OpenFaceTrack:
        """Rows of some pictures, whose points are in pixels of these.

        Raises:
            MediaError: too few of them have a face ("no face"), or it is another video's track ("broken").
        """
        assert self.scan is not None  # noqa: S101 - there are pictures
        points = shown_points(self.track.at(np.array([each.number for each in pictures])), self.scan.pixel)
        face.check_found(points.success, least_found)
        assert points.landmarks is not None  # noqa: S101 - it locates
        landmarks = points.landmarks / np.float32(shrunk)
        height, width = pictures[0].frame.shape[:2]
        centres = landmarks[points.success].mean(axis=1)
        inside = ((centres >= 0) & (centres <= (width, height))).all()
        count = self.scan.frame_count
        if not inside or self.track.frame_numbers[-1] < 0.9 * (count - 1):
            raise MediaError(
                "broken",
                f"{self.path} is no track of this video ({width} x {height}, {count} pictures): expected "
                "points inside the picture and a row for each; leave it out to use the face detector",
            )
        return replace(points, landmarks=landmarks)

    def during(self, span: Span) -> OpenFaceTrack:
        """Rows of a span of the video; OpenFace counts from the first picture."""
        first = self.scan.times[0] if self.scan is not None and self.scan.frame_count else 0.0
        times = self.track.timestamps + first
        return self.track.rows(np.flatnonzero((times >= span.start) & (times < span.end)))


class Preparer:
    """Prepares windows in the order of their start, one after the other.

    Args:
        preparation: how; its modalities are what is made.
        length: of all windows in seconds; None for the single window of a whole recording.
        everyone: follow each face, not only the largest.
        lenient: what is silent has speech too, and one picture with a face is enough.
        track: OpenFace's; its points go before the face detector.
        shrunk: factor by which pictures are smaller than the file's own.
        threads: of networks that make features; 0 lets them choose.
    """

    def __init__(
        self,
        preparation: Preparation,
        length: float | None,
        *,
        everyone: bool = False,
        lenient: bool = False,
        track: FaceTrack | None = None,
        shrunk: float = 1.0,
        threads: int = 0,
    ) -> None:
        self.preparation, self.length, self.everyone, self.lenient = preparation, length, everyone, lenient
        self.track, self.shrunk, self.threads = track, shrunk, threads
        self.least_found = 0.0 if lenient else face.LEAST_FOUND
        self._pictures, self._rows = preparation.of_pictures, preparation.of_openface
        self._follower = face.Follower()
        if length is not None:  # who is gone for longer than a window is forgotten
            self._follower = face.Follower(math.ceil(length / max(SEARCH, length / preparation.frames)))
        self._main: int | None = None

    def sample(self, times: NDArray[np.floating], span: Span, usual: float = 0.0) -> NDArray[np.int64]:
        """Choose the pictures that a window shows: (frames,) positions, or (0,) where too few show that time.

        Args:
            times: (N,) rising seconds of at least one picture.
            usual: seconds from one picture to the next, where that is known.
        """
        frames, sampling = self.preparation.frames, self.preparation.sampling
        if self.length is None:
            few = shown(times) < self.least_found * (span.end - span.start)
            return spread(0 if few else len(times), frames, sampling)
        # On a grid, so that windows that overlap have the same pictures, and each is searched once.
        step = self.length / frames
        grid = (round(span.start / step) + np.arange(frames)) * step
        numbers = nearest(times, grid)
        there = np.abs(times[numbers] - grid) <= max(STALE, usual)
        if there.mean() < self.least_found:
            return numbers[:0]
        if sampling == "consecutive":
            first, stop = np.searchsorted(times, [span.start, span.end]).tolist()
            first = max(0, min(first, stop - 1))  # the one before is still shown where none begins here
            return np.int64(first) + spread(stop - first, frames, sampling)
        return numbers

    def due(self, times: NDArray[np.floating]) -> NDArray[np.bool_]:
        """True where a picture at `times`, rising seconds, is searched for faces.

        The first in each `SEARCH` is, and the last of a take; of pictures that follow on all are. In between
        a face moves little, and its square is smoothed over longer: on the six real clips it was off by at
        most 0.6 % of its side from where all are searched.
        """
        if self.preparation.sampling != "even":
            return np.ones(len(times), bool)
        due = np.diff(np.floor(times / SEARCH), prepend=-np.inf) > 0
        if self.length is None:
            due[-1:] = True
        return np.array(due)

    def follow(
        self, time: float, frame: NDArray[np.uint8], found: NDArray[np.floating] | None, number: int = 0
    ) -> Picture:
        """Take the next picture in, and link the faces found in it to people; None where none were sought."""
        return Picture(time, frame, None if found is None else self._follower.add(found), number)

    def prepare(self, span: Span, pictures: Sequence[Picture], sound: Sound | None) -> list[PreparedWindow]:
        """Prepare a window: one person, or with `everyone` each, the main one first.

        Args:
            pictures: that it shows; none where too few show that time.
            sound: of that time; None where a model reads none.

        Raises:
            MediaError: the track is another video's.
            InputError: the speech encoder is not there or another one.
        """
        missing: dict[str, MediaError] = {}
        people: list[Person] = [(None, {})]
        audio: Tensors = {}
        with _noting(missing, "video"):
            if self._pictures:
                people = self._faces(span, pictures)
        with _noting(missing, "audio"):
            if sound is not None:
                audio = sound_tensors(sound, self.preparation, self.threads)
                if not self.lenient:
                    _check_loud(sound, self.preparation)
        with _noting(missing, "openface"):
            if self._rows:
                assert self.track is not None  # noqa: S101 - a model of tracks has one
                track = self.track.track if self.length is None else self.track.during(span)
                rows = _extracted(self._rows, track.seen(), self.preparation)
                face.check_found(track.success, self.least_found, "rows")
                people = [(person, own | rows) for person, own in people]
        seen = not missing.keys() & {"video", "openface"}
        found = seen if self._pictures or self._rows else None
        speech = None if sound is None else "audio" not in missing
        return [
            PreparedWindow(span, audio | own, found, speech, person, missing)
            for person, own in (people if seen else [(None, {})])
        ]

    def _faces(self, span: Span, pictures: Sequence[Picture]) -> list[Person]:
        """Cut faces out; the main person's first.

        Raises:
            MediaError: nobody is in enough of the pictures ("no face").
        """
        least = self.least_found
        if not pictures:
            raise MediaError(
                "no face",
                f"its pictures show less than {least:.0%} of {span.start:g} to {span.end:.2f} s: expected a "
                "face in as much of it; leave it out, or give --lenient",
            )
        frames = [picture.frame for picture in pictures]
        times = np.array([picture.time for picture in pictures])
        margin, size = self.preparation.margin, self.preparation.size
        if self.track is not None and self.track.locates:
            points = self.track.points(pictures, self.shrunk, least)
            faces = face.cut_faces(frames, times, points, margin=margin, size=size, least_found=least)
            return [(None, self._picture_tensors(faces, times))]
        people = self._people(pictures)
        prepared: list[Person] = []
        for person, track in people if self.everyone else people[:1]:
            faces = face.cut(frames, times, track, margin=margin, size=size)
            prepared.append((person, self._picture_tensors(faces, times)))
        return prepared

    def _people(self, pictures: Sequence[Picture]) -> list[tuple[int, face.Track]]:
        """List those in enough of the pictures that were searched, the main person first.

        That is the largest face, but one that is little larger does not displace the one before.

        Raises:
            MediaError: there is nobody ("no face").
        """
        searched = np.array([picture.faces is not None for picture in pictures])
        times = np.array([picture.time for picture in pictures])
        everyone = face.people_of([picture.faces or {} for picture in pictures], times)
        people = [each for each in everyone if each[1].found[searched].mean() >= self.least_found]
        if not people:
            found = everyone[0][1].found if everyone else np.zeros(len(pictures), bool)
            face.check_found(found[searched], self.least_found)  # raises
        largest = _side(people[0][1])
        before = [each for each in people if each[0] == self._main and SWITCH * _side(each[1]) >= largest]
        main = (before or people)[0]
        self._main = main[0]
        return [main, *(each for each in people if each[0] != main[0])]

    def _picture_tensors(self, faces: face.Faces, times: NDArray[np.floating]) -> Tensors:
        squares = faces.squares.astype(np.float32) * np.float32(self.shrunk)  # in pixels of the file's own
        tensors = {"times": times, "face": faces.found, "squares": squares}
        return tensors | _extracted(self._pictures, faces, self.preparation, self.threads)


@contextmanager
def _noting(missing: dict[str, MediaError], kind: str) -> Iterator[None]:
    """Note that a window has no face or no speech; other errors are the file's."""
    try:
        yield
    except MediaError as error:
        if error.reason not in ABSENT:
            raise
        missing[kind] = MediaError(error.reason, str(error))  # whose traceback holds no pictures


def _extracted(
    features: Sequence[Feature], source: object, preparation: Preparation, threads: int = 0
) -> Tensors:
    """Arrays of some inputs that are made of one kind of file."""
    tensors: Tensors = {}
    for feature in features:
        tensors |= feature.extract(source, preparation, threads)
    return tensors


def sound_tensors(sound: Sound, preparation: Preparation, threads: int = 0) -> Tensors:
    """Tensors of a sound; the waveform is float32, as all else is made of.

    Raises:
        MediaError: there is less than half a second of it ("too short").
        InputError: the speech encoder is not there or another one.
    """
    features = preparation.of_sound
    whole = all(each.whole_take for each in features)
    seconds = len(sound.samples) / sound.rate
    if seconds < LEAST_SOUND:
        least = LEAST_SOUND if whole else preparation.skip + LEAST_SOUND
        raise MediaError(
            "too short", f"{seconds:.2f} s of sound: expected at least {least:g} s; give a longer recording"
        )
    tensors = _extracted(features, sound, preparation, threads)
    kept = sound.samples if whole else sound.waveform
    level = 10 * np.log10(np.mean(np.square(kept), dtype=np.float64) + SILENCE)
    return {**tensors, "level": np.array([level], np.float32)}


def _check_loud(sound: Sound, preparation: Preparation) -> None:
    """Raise `MediaError` ("no speech") for sound that is silent for one of the audio inputs."""
    for feature in preparation.of_sound:
        alone = replace(preparation, modalities=(feature.name,))
        if not loud(sound.samples, sound.rate, alone):
            seconds = len(sound.samples) / sound.rate
            start, end = alone.sound_span(0.0, seconds)
            raise MediaError(
                "no speech",
                f"silent from {start:g} to {min(end, seconds):.2f} s, where a model listens: "
                f"expected sound above {SPEECH_LEVEL:g} dBFS; leave the take out, or give --lenient",
            )


def loud(samples: np.ndarray, rate: int, preparation: Preparation) -> bool:
    """True if the part of a recording or window (N,) that a model reads is not silent.

    A constant offset, as cheap sound cards add, is no sound.
    """
    start, end = preparation.sound_span(0.0, len(samples) / rate)
    part = samples[round(start * rate) : round(end * rate)]
    if not len(part):
        return False
    size = max(1, round(LOUDEST_FOR * rate))
    begins = np.arange(0, len(part), size)
    sums, squares = (np.add.reduceat(part.astype(np.float64) ** power, begins) for power in (1, 2))
    energies = squares - sums**2 / np.diff(begins, append=len(part))
    return bool(energies.max() / size > 10 ** (SPEECH_LEVEL / 10))


def usual_step(times: np.ndarray) -> float:
    """Usual seconds from one of the pictures at `times` (N,) to the next."""
    return float(np.median(np.diff(times))) if len(times) > 1 else 0.0


def shown(times: np.ndarray) -> float:
    """Seconds from the beginning of the first of the pictures at `times` (N,) to the end of the last.

    >>> shown(np.array([2.0, 2.5, 3.0]))
    1.5
    """
    return float(times[-1] - times[0]) + usual_step(times)


def _side(track: face.Track) -> float:
    return float(np.sqrt(track.boxes[:, 2] * track.boxes[:, 3]).mean())


def shown_points(points: OpenFaceTrack, pixel: float) -> OpenFaceTrack:
    """Move points to the picture as shown, where OpenFace measured them in pixels that are not square."""
    if points.landmarks is None or pixel == 1:
        return points
    return replace(points, landmarks=points.landmarks * np.array(display_scale(pixel), np.float32))


def read_track(name: str, path: Path, *, points_only: bool = False) -> OpenFaceTrack:
    """Read a take's own track, or its row of a table of clip means.

    Args:
        name: of the take.
        points_only: of a track no more than where the face is (see `read_openface`).

    Raises:
        MediaError: the table has no row for the take ("missing").
        InputError: the table of means is at fault, and so every take of it.
    """
    if not openface.is_means(path):
        return openface.read_openface(path, points_only=points_only)
    status = path.stat()
    means = _means(path, status.st_size, status.st_mtime_ns)
    track = means.get(name) or means.get(performance_key(name))
    if track is None:
        raise MediaError("missing", f"{path} has no row for {name}: add one, or leave the take out")
    return track


@lru_cache(maxsize=2)
def _means(path: Path, size: int, mtime_ns: int) -> dict[str, OpenFaceTrack]:
    """Rows of a table of clip means by name and by performance; of several forms of one, the first."""
    try:
        means = openface.read_means(path)
    except MediaError as error:
        raise InputError(str(error)) from None
    return {performance_key(name): means[name] for name in sorted(means, reverse=True)} | means


@cache
def detector() -> face.FaceDetector:
    """Return the face detector, one object a process."""
    return face.FaceDetector()
