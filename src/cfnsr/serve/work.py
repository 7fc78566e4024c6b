"""A worker's part: check that a recording is within limits, predict, explain."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cfnsr.data.windows import spans
from cfnsr.errors import InputError
from cfnsr.inference.predict import Progress, predict
from cfnsr.inference.timeline import Prediction
from cfnsr.media.errors import MediaError
from cfnsr.serve.decoding import Decoder, Measured
from cfnsr.serve.limits import MOST_EXPLAINED, MOST_PIXELS, Limits
from cfnsr.serve.refusals import Refusal, internal
from cfnsr.serve.schemas import Options

if TYPE_CHECKING:
    from cfnsr.inference.explained import Explained
    from cfnsr.inference.recogniser import Recogniser, TorchRecogniser

log = logging.getLogger(__name__)


class Stopped(Exception):  # noqa: N818 - no error either
    """Nobody waits for the result any more."""


@contextmanager
def refusing(file: Path) -> Iterator[None]:
    """Turn whatever goes wrong with a recording into a `Refusal`; a fault of the server goes to its log."""
    try:
        yield
    except (Refusal, Stopped):
        raise
    except MediaError as error:
        message = str(error).replace(str(file), file.name)  # the folder is nobody's business
        for option in ("video", "audio"):  # as the API calls it
            message = message.replace(f"--{option}-stream", f"{option}_stream")
        raise Refusal(422, error.reason, message) from None
    except Exception:  # one recording must not end the server, whatever it does to a decoder
        log.exception("a recording failed")
        raise internal() from None


def recognise(
    recogniser: Recogniser,
    file: Path,
    limits: Limits,
    options: Options,
    progress: Progress,
    decoder: Decoder,
) -> Prediction:
    """Predict from a recording, naming no folder of this machine; `Refusal` if it cannot be used."""
    with refusing(file):
        _check(decoder.measure(file, options.streams), recogniser, limits, options)
        prediction = predict(
            recogniser,
            file,
            window=options.window,
            hop=options.hop,
            all_faces=options.all_faces,
            streams=options.streams,
            progress=progress,
            reader=decoder.windows,  # type: ignore[arg-type]
        )
        people = tuple(replace(person, file=file.name) for person in prediction.people)
        return replace(prediction, file=file.name, people=people)


def _check(measured: Measured, recogniser: Recogniser, limits: Limits, options: Options) -> None:
    """Decline a recording that would take too long or too much memory."""
    duration, pixels = measured
    if duration > limits.max_seconds:
        message = f"the recording is {duration:.1f} s long: expected at most {limits.max_seconds:g} s"
        raise Refusal(422, "too long", f"{message}; cut it")
    count = len(spans(duration, recogniser.preparation, options.window, options.hop))
    if count > limits.windows:
        message = f"a hop of {options.hop:g} s makes {count} windows: expected at most {limits.windows}"
        raise Refusal(422, "too long", f"{message}; give a longer hop")
    if pixels > MOST_PIXELS:
        size, most = (f"{count / 1e6:.1f}" for count in (pixels, MOST_PIXELS))
        message = f"the pictures have {size} million pixels: expected at most {most}; shrink them"
        raise Refusal(422, "too large", message)


def explain_all(
    recogniser: TorchRecogniser,
    file: Path,
    prediction: Prediction,
    options: Options,
    progress: Progress,
    decoder: Decoder,
) -> list[dict[str, Any]]:
    """Explain all windows that have an answer; `Refusal` if there are too many."""
    answered = [number for number, window in enumerate(prediction.timeline) if window.probabilities]
    if len(answered) > MOST_EXPLAINED:
        message = f"{len(answered)} windows to explain: expected at most {MOST_EXPLAINED}; give a longer hop"
        raise Refusal(422, "too long", f"{message}, or use /jobs and ask for single ones")
    explanations = []
    for place, number in enumerate(answered):
        progress(place, len(answered))
        explained = explain_one(recogniser, file, prediction, number, options, decoder)
        explanations.append({"window": number, **explained.explanation.as_json()})
    return explanations


def explain_one(
    recogniser: TorchRecogniser,
    file: Path,
    prediction: Prediction,
    number: int,
    options: Options,
    decoder: Decoder,
) -> Explained:
    """Explain one window; `Refusal` where there is no such window, or no answer in it."""
    from cfnsr.inference.explained import explain_window

    window, hop, streams = options.window, options.hop, options.streams
    with refusing(file):
        try:
            return explain_window(
                recogniser,
                file,
                prediction,
                number,
                window=window,
                hop=hop,
                streams=streams,
                reader=decoder.windows,  # type: ignore[arg-type]
            )
        except MediaError:
            raise
        except InputError as error:
            there = number < len(prediction.timeline)
            raise Refusal(*((422, "no answer") if there else (404, "not found")), str(error)) from None
