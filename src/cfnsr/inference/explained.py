"""Explanations of a recording's window, prepared anew, and of a finished run's test clips."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cfnsr.data.preparer import PreparedWindow, Span
from cfnsr.data.windows import HOP, Windows
from cfnsr.errors import InputError
from cfnsr.inference.explain import Explanation, explain
from cfnsr.inference.recogniser import Reader, TorchRecogniser
from cfnsr.inference.sheet import sheet
from cfnsr.inference.timeline import Prediction
from cfnsr.media.container import USUAL, Streams
from cfnsr.training.checkpoint import load_model

if TYPE_CHECKING:
    from cfnsr.data.store import Store
    from cfnsr.evaluation.html import Example
    from cfnsr.training.run import Run


@dataclass(frozen=True, eq=False)
class Explained:
    """Explanation of one window, its tensors, and the seconds in the file of the window and its sound."""

    explanation: Explanation
    clip: Mapping[str, np.ndarray]
    span: Span
    sound_span: tuple[float, float]

    def as_png(self, name: str) -> bytes:
        """Draw all of it as a sheet with a name, see `sheet`."""
        return sheet(
            self.explanation,
            frames=self.clip.get("video"),
            times=self.clip.get("times"),
            sound=self.clip.get("waveform", self.clip.get("audio", self.clip.get("log_mel"))),
            span=self.sound_span,
            name=name,
        )


def explain_second(
    recogniser: TorchRecogniser,
    file: Path,
    second: float | None = None,
    *,
    window: float | None = None,
    openface: Path | None = None,
    streams: Streams = USUAL,
) -> Explained:
    """Explain a model's answer about the largest face at one moment of a recording.

    Args:
        second: of the file; None takes its middle. The window whose middle is the nearest is explained.
        window, openface, streams: see `predict`.

    Raises:
        InputError: as by `predict`; a second that the file has not, or no face or sound then.
        MediaError: the file is broken, or lacks what the model needs.
    """
    recogniser.check(file.name, openface)
    windows = recogniser.windows(file, length=window, openface=openface, streams=streams)
    duration = windows.duration
    if second is not None and not 0 <= second <= duration:
        raise InputError(
            f"--at is {second:g} s, and {file} has {duration:.1f} s: expected 0 to {duration:.1f}"
        )
    middle = duration / 2 if second is None else second
    place, _ = min(enumerate(windows.spans), key=lambda each: abs(sum(each[1]) - 2 * middle))
    prepared = windows.one(place)[0]
    if explained := _explain(recogniser, prepared):
        return explained
    there = {"face": prepared.face, "speech": prepared.speech}
    missing = " and ".join(what for what, found in there.items() if found is False)
    start, end = prepared.span
    raise InputError(
        f"{file} has no {missing} from {start:.1f} to {end:.1f} s: expected a moment with what the model "
        "needs; give another with --at"
    )


def explain_window(
    recogniser: TorchRecogniser,
    file: Path,
    prediction: Prediction,
    number: int,
    *,
    window: float | None = None,
    hop: float = HOP,
    streams: Streams = USUAL,
    reader: Reader = Windows,
) -> Explained:
    """Explain one window of a prediction.

    Args:
        prediction: of the file, or of one person in it.
        number: of the window, from 0, in its timeline.
        window, hop, streams, reader: those that it was made with.

    Raises:
        InputError: there is no such window, or no answer in it.
        MediaError: the file is no longer there.
    """
    if not 0 <= number < len(prediction.timeline):
        last = len(prediction.timeline) - 1
        raise InputError(f"there is no window {number}: expected one from 0 to {last}")
    answer = prediction.timeline[number]
    everyone = bool(recogniser.preparation.of_pictures)
    windows = recogniser.windows(file, reader, length=window, hop=hop, everyone=everyone, streams=streams)
    place, _ = min(enumerate(windows.spans), key=lambda each: abs(each[1].start - answer.start))
    prepared = min(windows.one(place), key=lambda prepared: _distance(prepared, prediction))
    explained = None if answer.probabilities is None else _explain(recogniser, prepared)
    if explained is None:
        raise InputError(f"the model gave no answer from {answer.start:.1f} to {answer.end:.1f} s")
    return explained


def _explain(recogniser: TorchRecogniser, window: PreparedWindow) -> Explained | None:
    """Explain a window; None where the model abstains."""
    clip = recogniser.clip(window)
    if clip is None:
        return None
    sound_span = recogniser.preparation.sound_span(*window.span)
    return Explained(explain(recogniser.model, clip), clip, window.span, sound_span)


def _distance(window: PreparedWindow, prediction: Prediction) -> float:
    """Distance of the face in a window from its place in the prediction, in pixels."""
    if "squares" not in window.tensors or not len(prediction.faces):
        return np.inf
    squares, seconds = window.tensors["squares"], window.tensors["times"]
    nearest = np.abs(prediction.faces[None, :, 0] - seconds[:, None]).argmin(axis=1)
    return float(np.abs(squares[:, :2] - prediction.faces[nearest, 1:3]).mean())


def examples(run: Run, store: Store) -> list[Example]:
    """Explain the test clips that a run is surest of, one right and one wrong, as far as there are such.

    Args:
        store: of the clips that the run was tested on.

    Raises:
        InputError: the checkpoint is missing or was trained on standardised speakers, or the store has no
            such clip.
    """
    from cfnsr.evaluation.html import Example

    recogniser = TorchRecogniser(load_model(run.folder))
    preparation = recogniser.preparation
    if recogniser.normalised:
        raise InputError(
            f"{run.folder} was trained on standardised speakers, and one clip alone cannot be: expected runs "
            "without --speaker-normalisation"
        )
    test, emotions = run.test, run.labels.emotions
    answers, sureness = test.log_probabilities.argmax(axis=1), test.log_probabilities.max(axis=1)
    found = []
    for title, wanted in (("rightly", answers == test.labels), ("wrongly", answers != test.labels)):
        if not wanted.any():
            continue
        place = int(np.where(wanted, sureness, -np.inf).argmax())
        name, acted = test.clips[place], emotions[int(test.labels[place])]
        tensors = store.load(name)
        explanation = explain(recogniser.model, tensors)
        sound = tensors.get("waveform") if preparation.of_sound else None
        length = float(tensors.get("duration", [preparation.skip + preparation.keep])[0])
        picture = sheet(
            explanation,
            frames=tensors.get("video") if "video" in preparation.modalities else None,
            times=tensors.get("times"),
            sound=sound,
            span=None if sound is None else preparation.sound_span(0.0, length),
            name=name,
        )
        caption = (
            f"The clip answered {title} that it is surest of: {name} of actor {test.actors[place]}, acted "
            f"{acted}, called {explanation.emotion}"
        )
        found.append(Example(caption, picture))
    return found
