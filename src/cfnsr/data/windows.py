"""A recording -> its windows, each prepared as a training clip is, in memory that does not grow.

A take is one window, and so is a file that is no longer than one; a longer file has many.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache, cached_property
from itertools import repeat
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cfnsr.corpus.take import Take
from cfnsr.data import preparer as preparing
from cfnsr.data.degraded import degrade_sound
from cfnsr.data.preparer import (
    FaceTrack,
    Picture,
    PreparedWindow,
    Preparer,
    Span,
    loud,
    read_track,
    usual_step,
)
from cfnsr.errors import InputError
from cfnsr.features.base import Sound
from cfnsr.features.preparation import Preparation
from cfnsr.media.container import USUAL, Streams
from cfnsr.media.decode import LONGEST_SOUND, stream_pictures, stream_sound
from cfnsr.media.errors import MediaError
from cfnsr.media.openface import is_means
from cfnsr.media.prefetch import map_ordered
from cfnsr.media.scan import scan_packets
from cfnsr.processes import cores

LONGEST_TAKE = 6.0  # seconds; a file no longer than this is one window, as a take was in training
HOP = 1.0  # seconds from one window to the next
LONGEST = 30.0  # seconds of a window, and from one to the next
LEAST_HEARD = 1.0  # seconds of a window, besides what is left out of its sound at the start
LEAST_HOP = 0.1
REST = 0.1  # seconds at the end that need no window of their own
LONGEST_SIDE = 1920  # pixels; larger pictures of long files are shrunk, for a window's are held at once
READ_AHEAD = 4  # pictures that are decoded while those before are searched for faces


class Windows:
    """The windows of a recording, in order; iterate over it once.

    Args:
        source: a file to predict; or a take, which is one window of all its files and has to have all.
        preparation: how clips were made for the model; its modalities are what the model reads.
        length: of a window in seconds; None makes a file of a take's length one window.
        hop: seconds from one window to the next.
        everyone: follow each face, not only the largest.
        openface: of a file, its OpenFace track, or a table of clip means.
        tolerant: go on without pictures or without sound where the file has none.
        threads: of decoder, face detector and speech encoder; 0 lets them choose.
        streams: which ones, where there are several; those of the preparation are the corpus's.

    Raises:
        MediaError: the recording is broken, or has no pictures or no sound.
        InputError: no such windows; clip means for more than one; everyone by one person's track.
    """

    def __init__(
        self,
        source: Path | Take,
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
        self.take = source if isinstance(source, Take) else Take(source.stem, "", 0, source, source, openface)
        self.is_take = self.take is source
        self.preparation, self.tolerant, self.threads = preparation, tolerant, threads
        self.reads_video, self.reads_audio = bool(preparation.of_pictures), bool(preparation.of_sound)
        self.reads_track = bool(preparation.of_openface)
        self._scan(streams)
        self.spans = self._plan(length, hop)
        self.whole = self.spans == [Span(0.0, self.duration)]  # prepared just as a take is
        self.length = self.spans[0].end  # of each window
        self.shrunk = 1.0 if self.whole or self.video is None else max(1.0, self.video.side / LONGEST_SIDE)
        self.preparer = Preparer(
            preparation,
            None if self.whole else self.length,
            everyone=everyone,
            lenient=self.is_take and preparation.lenient,
            track=self._track(everyone),
            shrunk=self.shrunk,
            threads=threads,
        )

    @property
    def notes(self) -> tuple[str, ...]:
        """Remarks on how the file was read, a line each."""
        return self.scan.notes if self.scan else ()

    def __len__(self) -> int:
        return len(self.spans)

    def __iter__(self) -> Iterator[PreparedWindow]:
        yield from self._prepared(range(len(self.spans)))
        if self._sound is not None:
            for _ in self._sound.parts:  # at the end this raises if too much could not be decoded
                pass

    def one(self, place: int) -> list[PreparedWindow]:
        """Prepare a single window, by its place in `spans`, instead of iterating.

        Only the window before is prepared too, so the main person is the one of there, not of all since the
        beginning.
        """
        near = range(max(0, place - 1), place + 1)
        return [each for each in self._prepared(near) if each.span == self.spans[place]]

    def sound(self, span: Span) -> Sound | None:
        """Sound of the next window; empty where the file has none, None where none is asked for."""
        if not self.reads_audio:
            return None
        if self._sound is None:
            return Sound(np.empty(0, np.float32), 1, self.preparation)
        samples = self._sound.cut(span.start, math.inf if self.whole else self.length)
        return degrade_sound(Sound(samples, self._sound.rate, self.preparation), self.take)

    def _scan(self, streams: Streams) -> None:
        """Read the packets of the files; nothing is decoded yet."""
        take, tolerant = self.take, self.tolerant
        one = streams if take.video == take.audio else None
        video = audio = None
        if take.video is not None:
            video = scan_packets(take.video, one or Streams(video=streams.video))
        if take.audio is not None:
            audio = video if one else scan_packets(take.audio, Streams(audio=streams.audio))
        self.video, self.audio, self.scan = video, audio, audio or video
        self.times = np.empty(0) if video is None else video.times
        self.duration = 0.0 if self.scan is None else self.scan.duration
        self.pictured = self.reads_video and len(self.times) > 0
        self.sounding = self.reads_audio and audio is not None and audio.sample_rate > 0
        if self.reads_video and not self.pictured and not (tolerant and self.sounding):
            instead = "ask for the sound alone" if self.is_take else "choose a model of sound"
            raise MediaError("no picture", f"{take.video} has no pictures: give a video, or {instead}")
        if self.reads_audio and not self.sounding and not (tolerant and self.pictured):
            instead = "ask for pictures alone" if self.is_take else "choose a model of pictures"
            raise MediaError(
                "no sound", f"{take.audio} has no sound: give a recording with sound, or {instead}"
            )
        if self.is_take and self.sounding and self.duration > LONGEST_SOUND:
            raise MediaError(
                "too long",
                f"{take.audio} has {self.duration / 60:.1f} minutes of sound in one piece: expected at most "
                f"{LONGEST_SOUND / 60:g}; cut it into takes",
            )

    def _plan(self, length: float | None, hop: float) -> list[Span]:
        whole = [Span(0.0, self.duration)]
        planned = whole if self.is_take else spans(self.duration, self.preparation, length, hop)
        usual = self.preparation.skip + self.preparation.keep
        if self.is_take or length is not None or len(planned) > 1 or self.duration <= usual:
            return planned
        if self._sound is None:
            return planned
        # In a file of a take's length, all speech may come after the part of a take that is read.
        samples, rate = self._sound.cut(0.0, math.inf), self._sound.rate
        later = _side_by_side(self.duration, usual, hop)
        parts = [samples[round(span.start * rate) : round(span.end * rate)] for span in later]
        speech = [loud(part, rate, self.preparation) for part in parts]
        return later if any(speech) and not loud(samples, rate, self.preparation) else planned

    def _track(self, everyone: bool) -> FaceTrack | None:
        path, file = self.take.openface, self.take.video or Path()
        wanted = self.reads_track or (self.reads_video and path is not None and not is_means(path))
        if path is None or not wanted:
            return None
        if is_means(path) and not self.whole:
            raise InputError(
                f"{path} has one mean of {file.name}, which is {self.duration:.1f} s long: "
                "expected OpenFace's track of it, a row for each picture"
            )
        if everyone and not is_means(path):
            raise InputError(f"{path} is the track of one person: expected no --openface with --all-faces")
        return FaceTrack(path, read_track(self.take.name, path, points_only=not self.reads_track), self.video)

    def _prepared(self, places: range) -> Iterator[PreparedWindow]:
        pictures = self._pictures(places) if self.pictured else repeat([])
        for span in self.spans[places.start : places.stop]:
            # Unnamed here, so that no window's pictures are held while the next one's are read.
            for window in self.preparer.prepare(span, next(pictures), self.sound(span)):
                self._refuse(window)
                yield window

    def _refuse(self, window: PreparedWindow) -> None:
        """Refuse a take without a face or speech, and a file too short for any."""
        for kind, error in window.missing.items():
            short = self.whole and not self.tolerant and error.reason == "too short"
            if self.is_take or short:
                raise MediaError(error.reason, f"{getattr(self.take, kind)}: {error}")

    def _pictures(self, places: range) -> Iterator[list[Picture]]:
        """Pictures of each window; each is decoded and searched for faces once."""
        wanted = self._wanted[places.start : places.stop]
        stream = self._searched(np.unique(np.concatenate(wanted)))
        kept: dict[int, Picture] = {}
        for window in wanted:
            if not len(window):
                yield []
                continue
            kept = {number: picture for number, picture in kept.items() if number >= window[0]}
            while window[-1] not in kept:
                picture = next(stream)
                if picture.number >= window[0]:
                    kept[picture.number] = picture
                del picture
            yield [kept[number] for number in window.tolist()]

    def _searched(self, numbers: NDArray[np.int64]) -> Iterator[Picture]:
        """Decode some pictures and search those that are due for faces, several at once."""
        path, scan = self.take.video, self.video
        assert path is not None and scan is not None  # noqa: S101 - there are pictures
        searched = np.isin(numbers, self._due).tolist()
        frames = stream_pictures(path, scan, numbers, shrunk=self.shrunk, threads=self.threads)
        pictures = zip(numbers.tolist(), self.times[numbers].tolist(), searched, frames, strict=True)
        for number, time, frame, found in map_ordered(_search, pictures, _pool(self.threads), READ_AHEAD):
            yield self.preparer.follow(time, frame, found, number)

    @cached_property
    def _wanted(self) -> list[NDArray[np.int64]]:
        """Numbers of the video's pictures that each window shows."""
        if self.whole and self.video is not None:
            return [self.preparer.sample(self.times, Span(0.0, self.video.duration))]
        usual = usual_step(self.times)
        return [self.preparer.sample(self.times, span, usual) for span in self.spans]

    @cached_property
    def _due(self) -> NDArray[np.int64]:
        """Numbers of the pictures of all windows that are searched for faces."""
        if self.preparer.track is not None and self.preparer.track.locates:
            return np.empty(0, np.int64)
        numbers = np.unique(np.concatenate(self._wanted))
        return numbers[self.preparer.due(self.times[numbers])]

    @cached_property
    def _sound(self) -> SoundReader | None:
        if not self.sounding or self.take.audio is None or self.audio is None:
            return None
        return SoundReader(stream_sound(self.take.audio, self.audio))


def spans(duration: float, preparation: Preparation, length: float | None, hop: float) -> list[Span]:
    """Lay out the windows of a file as `Windows` does; raise `InputError` for a length or hop out of range.

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


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads or cores(), thread_name_prefix="search for faces")


def _search(
    picture: tuple[int, float, bool, NDArray[np.uint8]],
) -> tuple[int, float, NDArray[np.uint8], NDArray[np.floating] | None]:
    """Search a picture for faces, if that is due."""
    number, time, searched, frame = picture
    return number, time, frame, preparing.detector().detect(frame) if searched else None


class SoundReader:
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
