"""What a worker does with one recording: look whether it is within limits, predict, explain."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cfnsr.errors import InputError
from cfnsr.inference.predict import Progress, predict
from cfnsr.inference.prediction import Prediction
from cfnsr.inference.windows import HOP, spans
from cfnsr.media.container import USUAL, Streams, find_streams, open_media, scan_packets
from cfnsr.media.errors import MediaError
from cfnsr.media.shown import declared_size
from cfnsr.serve.limits import MOST_EXPLAINED, MOST_PIXELS, Limits
from cfnsr.serve.refusals import Refusal, internal, of_media

if TYPE_CHECKING:
    from cfnsr.inference.explained import Explained
    from cfnsr.inference.recogniser import Recogniser, TorchRecogniser

log = logging.getLogger(__name__)


class Stopped(Exception):  # noqa: N818 - no error either
    """Nobody waits for the result any more."""


@dataclass(frozen=True)
class Options:
    """What is to be done with a recording.

    Args:
        window: seconds, see `predict`.
        hop: seconds.
        all_faces: follow everyone.
        explain: explain all windows at once.
        keep: keep the recording for a while, so that single windows can be explained.
        streams: which of the recording's streams, where it has several.
    """

    window: float | None = None
    hop: float = HOP
    all_faces: bool = False
    explain: bool = False
    keep: bool = False
    streams: Streams = USUAL


@contextmanager
def refusing(file: Path) -> Iterator[None]:
    """Turn whatever goes wrong with a recording into a `Refusal`; a fault of the server goes to its log."""
    try:
        yield
    except (Refusal, Stopped):
        raise
    except MediaError as error:
        raise of_media(error, file) from None
    except Exception:  # one recording must not end the server, whatever it does to a decoder
        log.exception("a recording failed")
        raise internal() from None


def recognise(
    recogniser: Recogniser, file: Path, limits: Limits, options: Options, progress: Progress
) -> Prediction:
    """A recording's prediction, which names no folder of this machine.

    Raises:
        Refusal: the recording is broken or beyond the limits.
        Stopped: by `progress`.
    """
    with refusing(file):
        check(file, recogniser, limits, options)
        prediction = predict(
            recogniser,
            file,
            window=options.window,
            hop=options.hop,
            all_faces=options.all_faces,
            streams=options.streams,
            progress=progress,
        )
        return _called(prediction, file.name)


def explain_all(
    recogniser: TorchRecogniser, file: Path, prediction: Prediction, options: Options, progress: Progress
) -> list[dict[str, Any]]:
    """Explanations of all windows that have an answer, with their numbers.

    Raises:
        Refusal: too many, or the recording is broken.
        Stopped: by `progress`.
    """
    told = [number for number, window in enumerate(prediction.timeline) if window.probabilities is not None]
    if len(told) > MOST_EXPLAINED:
        raise Refusal(
            422,
            "too long",
            f"{len(told)} windows to explain: expected at most {MOST_EXPLAINED}; give a longer hop, or use "
            "/jobs and ask for single ones",
        )
    explanations = []
    for place, number in enumerate(told):
        progress(place, len(told))
        with refusing(file):
            explained = explain_one(recogniser, file, prediction, number, options)
        explanations.append({"window": number, **explained.explanation.as_json()})
    return explanations


def explain_one(
    recogniser: TorchRecogniser, file: Path, prediction: Prediction, number: int, options: Options
) -> Explained:
    """One window's explanation.

    Raises:
        Refusal: there is no such window, or no answer in it.
        MediaError: the file is no longer there.
    """
    from cfnsr.inference.explained import explain_window

    there = number < len(prediction.timeline)
    try:
        return explain_window(
            recogniser,
            file,
            prediction,
            number,
            window=options.window,
            hop=options.hop,
            streams=options.streams,
        )
    except MediaError:
        raise
    except InputError as error:
        raise Refusal(*((422, "no answer") if there else (404, "not found")), str(error)) from None


def check(file: Path, recogniser: Recogniser, limits: Limits, options: Options) -> None:
    """Decline a recording that would take too long or too much memory.

    Raises:
        Refusal: too long, too many windows, or pictures too large.
        MediaError: the file is broken.
    """
    scan = scan_packets(file, options.streams)
    if scan.duration > limits.max_seconds:
        raise Refusal(
            422,
            "too long",
            f"the recording is {scan.duration:.1f} s long: expected at most {limits.max_seconds:g} s; cut it",
        )
    count = len(spans(scan.duration, recogniser.preparation, options.window, options.hop))
    if count > limits.windows:
        raise Refusal(
            422,
            "too long",
            f"a hop of {options.hop:g} s makes {count} windows: expected at most {limits.windows}; give a "
            "longer hop",
        )
    if not scan.frame_count:
        return
    with open_media(file) as container:
        video, _ = find_streams(container, options.streams)
        pixels = 0 if video is None else math.prod(declared_size(video))
    if pixels > MOST_PIXELS:
        raise Refusal(
            422,
            "too large",
            f"the pictures have {pixels / 1e6:.1f} million pixels: expected at most {MOST_PIXELS / 1e6:.1f}; "
            "shrink them",
        )


def _called(prediction: Prediction, name: str) -> Prediction:
    people = tuple(_called(person, name) for person in prediction.people)
    return replace(prediction, file=name, people=people)
