"""Recordings to try, made when they are first needed: drawn faces of the synthetic corpus, nobody's own."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cfnsr.media.encode import write_video
from cfnsr.synthesis.corpus import FPS, VERSION, Part, act
from cfnsr.synthesis.portrait import paint
from cfnsr.synthesis.speech import SAMPLE_RATE

SIZE = (480, 360)  # width and height in pixels
ABSENCE = 3.4  # seconds in which nobody is to be seen or heard
WALL = (124, 116, 104)  # RGB of what is to be seen then
SEED = 0


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

    @property
    def file(self) -> str:
        """Name of its file."""
        return f"{self.name}.mp4"


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


def make(example: Example, folder: Path, step: Callable[[], object] = lambda: None) -> Path:
    """An example's file, which is made if it is not there: two seconds of work for each take.

    Args:
        example: what to draw.
        folder: of the file.
        step: called before each picture; what it raises ends the work, and no part of a file stays.

    Raises:
        OSError: it cannot be written.
    """
    path = folder / example.file
    if not path.is_file():

        def drawn() -> Iterator[NDArray[np.uint8]]:
            for picture in chain.from_iterable(pictures for pictures, _ in played):
                step()
                yield picture

        played = []
        for take in example.takes:
            step()
            played.append(_play(take))
        write_video(path, drawn(), FPS, np.concatenate([sound for _, sound in played]), SAMPLE_RATE)
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
