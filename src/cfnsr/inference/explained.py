"""One window of a recording, explained: its clip is prepared anew, equal to the predicted one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cfnsr.errors import InputError
from cfnsr.inference.explain import Explanation, explain
from cfnsr.inference.predict import complete, refuse_standardised, tolerates, used
from cfnsr.inference.prediction import Prediction
from cfnsr.inference.recogniser import TorchRecogniser
from cfnsr.inference.sheet import sheet
from cfnsr.inference.windows import HOP, Span, Stretch, Windows, heard_at
from cfnsr.media.container import USUAL, Streams


@dataclass(frozen=True, eq=False)
class Explained:
    """One window's explanation and its clip.

    Args:
        clip: the tensors that were explained.
        span: of the window in the file.
        heard: seconds of the file where the sound that is read begins and ends.
    """

    explanation: Explanation
    clip: Mapping[str, np.ndarray]
    span: Span
    heard: tuple[float, float]

    def as_png(self, name: str) -> bytes:
        """Draw all of it as a sheet with a name, see `sheet`."""
        return sheet(
            self.explanation,
            frames=self.clip.get("video"),
            times=self.clip.get("times"),
            sound=self.clip.get("waveform", self.clip.get("audio", self.clip.get("log_mel"))),
            span=self.heard,
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
        recogniser: of a checkpoint.
        second: of the file; None takes its middle. The window whose middle is the nearest is explained.
        window, openface, streams: see `predict`.

    Raises:
        InputError: a model of OpenFace tracks without one, or of standardised speakers, a second that the
            file has not, or no face or sound then.
        MediaError: the file is broken, or lacks what the model needs.
    """
    if recogniser.preparation.of_file("openface") and openface is None:
        raise InputError(
            f"model {recogniser.name} sees OpenFace tracks: expected --openface with the CSV of {file.name}"
        )
    refuse_standardised(recogniser)
    windows = Windows(
        file,
        recogniser.preparation,
        length=window,
        openface=openface,
        tolerant=tolerates(recogniser),
        streams=streams,
    )
    duration = windows.scan.duration
    if second is not None and not 0 <= second <= duration:
        raise InputError(
            f"--at is {second:g} s, and {file} has {duration:.1f} s: expected 0 to {duration:.1f}"
        )
    middle = duration / 2 if second is None else second
    place, _ = min(enumerate(windows.spans), key=lambda each: abs(sum(each[1]) - 2 * middle))
    stretch = windows.one(place)[0]
    explained = _explain(recogniser, stretch)
    if explained is None:
        missing = " and ".join(
            what for what, there in (("face", stretch.face), ("speech", stretch.speech)) if there is False
        )
        start, end = stretch.span
        raise InputError(
            f"{file} has no {missing} from {start:.1f} to {end:.1f} s: expected a moment with what the model "
            "needs; give another with --at"
        )
    return explained


def explain_window(
    recogniser: TorchRecogniser,
    file: Path,
    prediction: Prediction,
    number: int,
    *,
    window: float | None = None,
    hop: float = HOP,
    streams: Streams = USUAL,
) -> Explained:
    """Explain one window of a prediction.

    Args:
        prediction: of the file, or of one person in it.
        number: of the window, from 0, in the timeline of the prediction.
        window, hop: seconds that the prediction was made with.
        streams: those that it was made from.

    Raises:
        InputError: there is no such window, or no answer in it.
        MediaError: the file is no longer there.
    """
    if not 0 <= number < len(prediction.timeline):
        last = len(prediction.timeline) - 1
        raise InputError(f"there is no window {number}: expected one from 0 to {last}")
    told = prediction.timeline[number]
    windows = Windows(
        file,
        recogniser.preparation,
        length=window,
        hop=hop,
        everyone=bool(recogniser.preparation.of_file("video")),
        tolerant=tolerates(recogniser),
        streams=streams,
    )
    spans = windows.spans
    place = min(range(len(spans)), key=lambda place: abs(spans[place].start - told.start))
    stretch = min(windows.one(place), key=lambda stretch: _distance(stretch, prediction))
    explained = None if told.probabilities is None else _explain(recogniser, stretch)
    if explained is None:
        raise InputError(f"the model gave no answer from {told.start:.1f} to {told.end:.1f} s")
    return explained


def _explain(recogniser: TorchRecogniser, stretch: Stretch) -> Explained | None:
    """Explain a window; None where the model abstains."""
    uses = used(recogniser, stretch)
    if not uses:
        return None
    clip = complete(recogniser, stretch, uses)
    heard = heard_at(stretch.span, recogniser.preparation)
    return Explained(explain(recogniser.model, clip), clip, stretch.span, heard)


def _distance(stretch: Stretch, prediction: Prediction) -> float:
    """Distance of the face in a window from its place in the prediction, in pixels."""
    if "squares" not in stretch.tensors or not len(prediction.faces):
        return np.inf
    squares: np.ndarray = stretch.tensors["squares"]
    times = prediction.faces[:, 0]
    nearest = np.abs(times[None] - stretch.tensors["times"][:, None]).argmin(axis=1)
    return float(np.abs(squares[:, :2] - prediction.faces[nearest, 1:3]).mean())
