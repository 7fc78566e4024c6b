"""Why the model answered one window of a recording as it did: worked out when asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np

from cfnsr.inference.predict import answers, tolerates
from cfnsr.inference.prediction import Prediction, Window
from cfnsr.inference.windows import HOP, Stretch, Windows
from cfnsr.serve.refusals import Refusal

if TYPE_CHECKING:
    from cfnsr.inference.explain import Explanation
    from cfnsr.inference.recogniser import Recogniser, TorchRecogniser

drawing = Lock()  # matplotlib's settings belong to the process


@dataclass(frozen=True)
class Options:
    """What is to be done with a recording.

    Args:
        window: seconds, see `predict`.
        hop: seconds.
        all_faces: follow everyone.
        explain: explain all windows at once.
        keep: keep the recording for a while, so that single windows can be explained.
    """

    window: float | None = None
    hop: float = HOP
    all_faces: bool = False
    explain: bool = False
    keep: bool = False


@dataclass(frozen=True, eq=False)
class Explained:
    """One window's explanation and the clip that it is of."""

    explanation: Explanation
    clip: Mapping[str, np.ndarray]
    span: tuple[float, float]

    def as_png(self, name: str) -> bytes:
        """A sheet that shows the whole of it, see `heatmap.sheet`."""
        from cfnsr.inference.heatmap import sheet

        sound = self.clip.get("waveform", self.clip.get("audio", self.clip.get("log_mel")))
        with drawing:
            return sheet(
                self.explanation,
                frames=self.clip.get("video"),
                times=self.clip.get("times"),
                sound=sound,
                span=self.span,
                name=name,
            )


class _Listening:
    """A recogniser that keeps the clips it is given, which are complete then."""

    def __init__(self, recogniser: Recogniser) -> None:
        self.name, self.labels = recogniser.name, recogniser.labels
        self.reads, self.preparation = recogniser.reads, recogniser.preparation
        self.normalised, self.tolerant = recogniser.normalised, recogniser.tolerant
        self.clips: Sequence[Mapping[str, np.ndarray]] = ()

    def probabilities(self, clips: Sequence[Mapping[str, np.ndarray]]) -> np.ndarray:
        self.clips = clips
        return np.full((len(clips), len(self.labels)), 1 / len(self.labels))


def explain_window(
    recogniser: TorchRecogniser, file: Path, prediction: Prediction, number: int, options: Options
) -> Explained:
    """Explain one window of a recording.

    The clip is made anew, and faces are looked for only around it. What is before it is decoded, which is
    little beside the rest.

    Args:
        recogniser: what predicted.
        file: the recording.
        prediction: of it, or of one person in it.
        number: of the window, from 0, in the timeline of the prediction.
        options: that the prediction was made with.

    Raises:
        Refusal: there is no such window, or no answer in it.
        MediaError: the file is no longer there.
    """
    from cfnsr.inference.explain import explain

    if not 0 <= number < len(prediction.timeline):
        last = len(prediction.timeline) - 1
        raise Refusal(404, "not found", f"there is no window {number}: expected one from 0 to {last}")
    window = prediction.timeline[number]
    if window.probabilities is None:
        raise Refusal(
            422, "no answer", f"the model gave no answer from {window.start:.1f} to {window.end:.1f} s"
        )
    stretch = _stretch(recogniser, file, prediction, window, options)
    listening = _Listening(recogniser)
    list(answers(listening, [stretch]))
    if not listening.clips:
        raise Refusal(422, "no answer", "too little is to be seen or heard there")
    (clip,) = listening.clips
    settings = recogniser.preparation
    begin = window.start + settings.skip
    span = (begin, begin + settings.keep)
    return Explained(explain(recogniser.model, clip), clip, span)


def _stretch(
    recogniser: Recogniser, file: Path, prediction: Prediction, window: Window, options: Options
) -> Stretch:
    """The window of the person whom the prediction is of."""
    windows = Windows(
        file,
        recogniser.preparation,
        length=options.window,
        hop=options.hop,
        everyone=recogniser.reads.get("video") == "video",
        tolerant=tolerates(recogniser),
    )
    spans = windows.spans
    place = min(range(len(spans)), key=lambda place: abs(spans[place].start - window.start))
    # The first, which says how long windows are, and the one before, whose faces this one goes on with.
    windows.spans = list(dict.fromkeys([spans[0], *spans[max(0, place - 1) : place + 1]]))
    wanted = spans[place]
    found = []
    for stretch in windows:
        if stretch.span == wanted:
            found.append(stretch)
        elif found:
            break
    return min(found, key=lambda stretch: _distance(stretch, prediction))


def _distance(stretch: Stretch, prediction: Prediction) -> float:
    """How far the face in a window is from where the prediction saw it, in pixels."""
    if "squares" not in stretch.tensors or not len(prediction.faces):
        return np.inf
    squares: np.ndarray = stretch.tensors["squares"]
    times = prediction.faces[:, 0]
    nearest = np.abs(times[None] - stretch.tensors["times"][:, None]).argmin(axis=1)
    return float(np.abs(squares[:, :2] - prediction.faces[nearest, 1:3]).mean())
