"""A user's file -> its emotions over time, by the same preparation as the training clips."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from cfnsr.errors import InputError
from cfnsr.features.base import FEATURES
from cfnsr.features.speech_encoder import choose_encoder, find_encoder
from cfnsr.inference.prediction import Prediction, Window, most_probable, summary
from cfnsr.inference.windows import HOP, Stretch, Windows
from cfnsr.media.container import USUAL, Streams
from cfnsr.media.prefetch import prefetch

if TYPE_CHECKING:
    from cfnsr.inference.recogniser import Recogniser
    from cfnsr.models.zoo import Model

BATCH = 4  # windows that are recognised at once

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
) -> Prediction:
    """Recognise the emotions in a video or sound file of any length.

    A file of up to 6 s is one window, as a take was in training. A longer one is cut into windows as long as
    the sound of a training clip, and memory does not grow with it. Where the model needs a face and none is
    found, or sound and none is louder than silence, it abstains. A model that was trained with modality
    dropout answers by what is left.

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

    Raises:
        MediaError: when the file has no pictures, no sound or is broken; its `reason` says which.
        InputError: when the model needs an OpenFace file or a speech encoder that is not there, was trained
            on standardised speakers, or a window or hop cannot be.
    """
    recogniser = as_recogniser(model)
    if speech_encoder is not None:
        find_speech_encoder(recogniser, str(speech_encoder))
    path = Path(file)
    refuse_standardised(recogniser)
    if openface is None and recogniser.preparation.of_file("openface"):
        raise InputError(
            f"model {recogniser.name} sees OpenFace tracks: expected --openface with the CSV of {path.name}, "
            "a folder of such files, or a table of clip means"
        )
    if all_faces and not recogniser.preparation.of_file("video"):
        raise InputError(
            f"model {recogniser.name} looks for no faces: expected no --all-faces, or a model of pictures"
        )
    windows = Windows(
        path,
        recogniser.preparation,
        length=window,
        hop=hop,
        everyone=all_faces,
        openface=None if openface is None else Path(openface),
        tolerant=tolerates(recogniser),
        streams=streams,
    )
    followed = _Followed()
    # The next windows are prepared while these are recognised.
    with closing(prefetch(iter(windows), BATCH)) as prepared:
        for stretch, answer in answers(recogniser, _counted(prepared, len(windows), progress)):
            followed.add(stretch, answer)
    return replace(followed.told(str(file), everyone=all_faces), notes=windows.scan.notes)


def as_recogniser(model: Model | Recogniser) -> Recogniser:
    """Wrap a model as `predict` needs it."""
    if hasattr(model, "probabilities"):
        return cast("Recogniser", model)
    from cfnsr.inference.recogniser import TorchRecogniser

    return TorchRecogniser(cast("Model", model))


def find_speech_encoder(recogniser: Recogniser, given: str | None) -> None:
    """Find the speech encoder that a model was trained with, before any file needs it.

    Args:
        recogniser: one that reads no speech needs none.
        given: a folder or a hub name; None leaves what `CFNSR_SPEECH_ENCODER` names, or the hub's.

    Raises:
        InputError: when it is not there, is another one, or none is needed.
    """
    if recogniser.preparation.pretrained:
        if given is not None:
            choose_encoder(given)
        find_encoder(recogniser.preparation.speech_encoder, recogniser.preparation.speech_sha256)
    elif given is not None:
        raise InputError(f"--speech-encoder {given}: model {recogniser.name} reads no speech; leave it out")


def refuse_standardised(recogniser: Recogniser) -> None:
    """Raise `InputError` for a model of standardised speakers: one recording does not suffice for those."""
    if recogniser.normalised:
        raise InputError(
            f"model {recogniser.name} was trained on speakers standardised over all their takes, and a file "
            "alone cannot be: expected a model trained without --speaker-normalisation"
        )


def tolerates(recogniser: Recogniser) -> bool:
    """True if the model can answer by one modality where the other is missing."""
    both = len(recogniser.reads) > 1
    return recogniser.tolerant and both and all(FEATURES[name].computed for name in recogniser.reads.values())


def answers(recogniser: Recogniser, stretches: Iterable[Stretch]) -> Iterator[tuple[Stretch, Window]]:
    """Recognise the windows, several at once."""
    waiting = iter(stretches)
    while group := list(islice(waiting, BATCH)):
        uses = [used(recogniser, stretch) for stretch in group]
        told = [place for place, modalities in enumerate(uses) if modalities]
        clips = [complete(recogniser, group[place], uses[place]) for place in told]
        values = dict(zip(told, recogniser.probabilities(clips).tolist(), strict=True)) if clips else {}
        for place, stretch in enumerate(group):
            probabilities = None
            if place in values:
                probabilities = dict(zip(recogniser.labels.emotions, values[place], strict=True))
            yield (
                stretch,
                Window(*stretch.span, probabilities, stretch.face, stretch.speech, uses[place]),
            )


def used(recogniser: Recogniser, stretch: Stretch) -> tuple[str, ...]:
    """Modalities that an answer rests on; none where the model has to abstain."""
    there = {"video": stretch.face, "audio": stretch.speech}
    modalities = tuple(modality for modality in recogniser.reads if there[modality])
    if len(modalities) == len(recogniser.reads) or tolerates(recogniser):
        return modalities
    return ()


def complete(recogniser: Recogniser, stretch: Stretch, uses: Sequence[str]) -> Mapping[str, np.ndarray]:
    """Complete a window's tensors: what is missing becomes what a model reads of no face or no sound.

    Args:
        uses: see `used`; not empty.
    """
    tensors = dict(stretch.tensors)
    for modality, name in recogniser.reads.items():
        if modality not in uses:
            tensors |= FEATURES[name].absent(recogniser.preparation)
    return tensors


def _counted(stretches: Iterable[Stretch], count: int, progress: Progress) -> Iterator[Stretch]:
    """Yield the persons of `count` windows, and report progress when the next window begins."""
    done, span = 0, None
    progress(0, count)
    for stretch in stretches:
        if span is not None and stretch.span != span:
            done += 1
            progress(done, count)
        span = stretch.span
        yield stretch
    progress(count, count)


class _Followed:
    """The windows of a file as they come, of everyone and of each person."""

    def __init__(self) -> None:
        self.main = _Timeline()
        self.people: dict[int, _Timeline] = {}

    def add(self, stretch: Stretch, window: Window) -> None:
        if not self.main.windows or self.main.windows[-1].start < window.start:
            self.main.add(stretch, window)  # the largest face of a window comes first
        if stretch.person is not None:
            self.people.setdefault(stretch.person, _Timeline()).add(stretch, window)

    def told(self, file: str, *, everyone: bool) -> Prediction:
        people = sorted(self.people.values(), key=lambda person: -person.presence) if everyone else []
        told = [person.told(file, number) for number, person in enumerate(people, start=1)]
        return replace(self.main.told(file), people=tuple(told))


class _Timeline:
    def __init__(self) -> None:
        self.windows: list[Window] = []
        # Second -> centre and side of the face's square. Lists: an array that stays for each window keeps the
        # memory of all that lay beside it from being used again, 0.3 MB a window.
        self.squares: dict[float, list[float]] = {}
        self.presence = 0.0  # the sides of the face, added up

    def add(self, stretch: Stretch, window: Window) -> None:
        self.windows.append(window)
        if "squares" in stretch.tensors:
            squares, found = stretch.tensors["squares"], stretch.tensors["face"]
            seconds = stretch.tensors["times"][found].tolist()
            self.squares |= zip(seconds, squares[found].tolist(), strict=True)
            self.presence += float(squares[:, 2].mean())

    def told(self, file: str, number: int | None = None) -> Prediction:
        probabilities = summary(self.windows)
        rows = [(time, *square) for time, square in sorted(self.squares.items(), key=lambda item: item[0])]
        return Prediction(
            file,
            most_probable(probabilities),
            probabilities,
            tuple(self.windows),
            number,
            faces=np.array(rows, np.float32).reshape(-1, 4),
        )
