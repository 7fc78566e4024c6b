"""Recordings to try, made when they are first needed: drawn faces of the synthetic corpus, nobody's own."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Event

import numpy as np
from numpy.typing import NDArray

from cfnsr.media.encode import write_video
from cfnsr.serve.work import Stopped
from cfnsr.synthesis.corpus import FPS, VERSION, Part, act
from cfnsr.synthesis.portrait import paint
from cfnsr.synthesis.speech import SAMPLE_RATE

SIZE = (480, 360)  # width and height in pixels
ABSENCE = 3.4  # seconds without anybody to see or hear
WALL = (124, 116, 104)  # RGB, shown meanwhile
SEED = 0

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Example:
    """A recording to try.

    Args:
        name: of its file.
        title: what is to be seen, in words.
        takes: that follow each other; None is a while without anybody.
    """

    name: str
    title: str
    takes: tuple[Part | None, ...]


CALM, HAPPY, ANGRY = 2, 3, 5
EXAMPLES = (
    Example("happy", "A drawn woman, happy", (Part(2, HAPPY, 2, 1, 1),)),
    Example("angry", "A drawn man, angry", (Part(1, ANGRY, 2, 2, 1),)),
    Example(
        "changing",
        "A drawn woman: calm, then gone, then happy",
        (Part(4, CALM, 1, 1, 1), None, Part(4, HAPPY, 2, 2, 1)),
    ),
)


def cache() -> Path | None:
    """The folder of the user's cache that keeps the examples; None where it cannot be written."""
    import pooch

    folder = Path(pooch.os_cache("cfnsr")) / f"examples-{VERSION}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return folder if os.access(folder, os.W_OK) else None


def draw(drawn: dict[str, Path], fallback: Path, over: Event) -> None:
    """Make the examples that are not there yet, one after the other.

    Args:
        drawn: where each is, by name; filled as they are drawn.
        fallback: folder for them where the user's cache cannot be written.
        over: ends it once it is set.
    """
    folder = cache() or fallback
    for example in EXAMPLES:
        try:
            drawn[example.name] = make(example, folder, over)
        except Stopped:
            return
        except OSError:
            log.warning("an example cannot be written", exc_info=True)


def make(example: Example, folder: Path, over: Event) -> Path:
    """An example's file, which is made if it is not there: two seconds of work for each take.

    Raises:
        OSError: it cannot be written.
        Stopped: it was over; no part of a file stays.
    """
    path = folder / f"{example.name}.mp4"
    if path.is_file():
        return path

    def pictures() -> Iterator[NDArray[np.uint8]]:
        for frames, _ in played:
            for picture in frames:
                if over.is_set():
                    raise Stopped
                yield picture

    played = [_play(take) for take in example.takes]
    write_video(path, pictures(), FPS, np.concatenate([sound for _, sound in played]), SAMPLE_RATE)
    return path


def _play(take: Part | None) -> tuple[Iterator[NDArray[np.uint8]], NDArray[np.float32]]:
    """Pictures and as much sound."""
    if take is None:
        frames = round(ABSENCE * FPS)
        picture = np.broadcast_to(np.array(WALL, np.uint8), (SIZE[1], SIZE[0], 3))
        return iter([picture] * frames), np.zeros(round(frames / FPS * SAMPLE_RATE), np.float32)
    scene = act(take, SEED)
    _, pictures = paint(scene.person, scene.performance, SIZE, scene.rng)
    return pictures, scene.waveform
