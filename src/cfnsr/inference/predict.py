"""A user's file -> its emotions over time, by the same preparation as the training clips."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cfnsr.data.preparer import PreparedWindow
from cfnsr.data.windows import HOP, Windows
from cfnsr.errors import InputError
from cfnsr.inference.recogniser import BATCH, Reader, Recogniser, as_recogniser
from cfnsr.inference.timeline import Prediction, Window, most_probable, summary
from cfnsr.media.container import USUAL, Streams
from cfnsr.media.prefetch import prefetch

if TYPE_CHECKING:
    from cfnsr.models.entries import Model

Progress = Callable[[int, int], object]


def predict(
    model: Model | Recogniser,
    file: str | Path,
    *,
    openface: str | Path | None = None,
    speech_encoder: str | Path | None = None,
    window: float | None = None,
    hop: float = HOP,
    all_faces: bool = False,
    streams: Streams = USUAL,
    progress: Progress = lambda done, total: None,
    reader: Reader = Windows,
) -> Prediction:
    """Recognise the emotions in a video or sound file of any length.

    A file of up to 6 s is one window, as a take was in training; a longer one is cut into windows as long as
    the sound of a training clip, and memory does not grow with it. Where face or sound that the model needs
    are missing it abstains; one that was trained with modality dropout answers by what is left.

    Args:
        model: from `load_model` or `load_exported`, or any model of the zoo (its weights are then random, and
            say nothing).
        file: anything PyAV opens; a model of both modalities needs pictures and sound.
        openface: the file's OpenFace CSV, whose points then say where the face is; else the detector does.
            A model of OpenFace tracks needs it, or a table of clip means that has the file's name.
        speech_encoder: folder or hub name of the speech encoder that the model was trained with, if any; None
            leaves what `CFNSR_SPEECH_ENCODER` names, or what the process used before.
        window: seconds of a window, for files of any length. Its pictures are spread over all of it; of its
            sound as much is read as of a training clip, from where that began.
        hop: seconds from one window to the next.
        all_faces: follow everyone in the picture (`Prediction.people`), not only the largest face.
        streams: of pictures and of sound, where the file has several; by default those marked so, else the
            first.
        progress: called with the windows done and their number.
        reader: makes the `Windows` of the file.

    Raises:
        MediaError: when the file has no pictures, no sound or is broken; its `reason` says which.
        InputError: when the model needs an OpenFace file or a speech encoder that is not there, was trained
            on standardised speakers, or a window or hop cannot be.
    """
    recogniser = as_recogniser(model)
    path = Path(file)
    if speech_encoder is not None:
        recogniser.find_networks(str(speech_encoder))
    recogniser.check(path.name, openface)
    if all_faces and not recogniser.preparation.of_pictures:
        raise InputError(
            f"model {recogniser.name} looks for no faces: expected no --all-faces, or a model of pictures"
        )
    settings = {"length": window, "hop": hop, "everyone": all_faces, "streams": streams}
    windows = recogniser.windows(path, reader, openface=openface and Path(openface), **settings)
    timelines = Timelines()
    # The next windows are prepared while these are recognised.
    with closing(prefetch(iter(windows), BATCH)) as prepared:
        for clip, answer in recogniser.recognise(_counted(prepared, len(windows), progress)):
            timelines.add(clip, answer)
    return replace(timelines.prediction(str(file), all_faces=all_faces), notes=windows.notes)


def _counted(windows: Iterable[PreparedWindow], count: int, progress: Progress) -> Iterator[PreparedWindow]:
    """Yield the persons of `count` windows, and report progress when the next window begins."""
    done, span = 0, None
    progress(0, count)
    for window in windows:
        if span is not None and window.span != span:
            done += 1
            progress(done, count)
        span = window.span
        yield window
    progress(count, count)


class Timelines:
    """The windows of a file as they come, of the main person and of each one."""

    def __init__(self) -> None:
        self.main = _Timeline()
        self.people: dict[int, _Timeline] = {}

    def add(self, clip: PreparedWindow, answer: Window) -> None:
        """Take in the next answer; the main person of a window comes first."""
        if not self.main.windows or self.main.windows[-1].start < answer.start:
            self.main.add(clip, answer)
        if clip.person is not None:
            self.people.setdefault(clip.person, _Timeline()).add(clip, answer)

    def prediction(self, file: str, *, all_faces: bool) -> Prediction:
        """Sum up; people are numbered by how large and long they are seen."""
        people = sorted(self.people.values(), key=lambda person: -person.presence) if all_faces else []
        numbered = tuple(person.prediction(file, number) for number, person in enumerate(people, start=1))
        return replace(self.main.prediction(file), people=numbered)


class _Timeline:
    def __init__(self) -> None:
        self.windows: list[Window] = []
        # Second -> centre and side of the face's square. Lists: an array that stays for each window keeps the
        # memory of all that lay beside it from being used again, 0.3 MB a window.
        self.squares: dict[float, list[float]] = {}
        self.presence = 0.0  # the sides of the face, added up

    def add(self, clip: PreparedWindow, answer: Window) -> None:
        self.windows.append(answer)
        if "squares" in clip.tensors:
            squares, found = clip.tensors["squares"], clip.tensors["face"]
            seconds = clip.tensors["times"][found].tolist()
            self.squares |= zip(seconds, squares[found].tolist(), strict=True)
            self.presence += float(squares[:, 2].mean())

    def prediction(self, file: str, person: int | None = None) -> Prediction:
        probabilities = summary(self.windows)
        faces = np.array([(time, *self.squares[time]) for time in sorted(self.squares)], np.float32)
        windows, emotion = tuple(self.windows), most_probable(probabilities)
        return Prediction(file, emotion, probabilities, windows, person, faces=faces.reshape(-1, 4))
