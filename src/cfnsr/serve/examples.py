"""Recordings to try, drawn when they are first asked for: faces of the synthetic corpus, nobody's own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cfnsr.media.encode import write_video
from cfnsr.synthesis.corpus import FPS, VERSION, Part, act
from cfnsr.synthesis.face import paint
from cfnsr.synthesis.speech import SAMPLE_RATE

SIZE = (480, 360)  # width and height in pixels
ABSENCE = 3.4  # seconds without anybody to see or hear
WALL = (124, 116, 104)  # RGB, shown meanwhile
SEED = 0


CALM, HAPPY, ANGRY = 2, 3, 5
# Title, and takes that follow each other; None is a while without anybody.
EXAMPLES: dict[str, tuple[str, tuple[Part | None, ...]]] = {
    "happy": ("A drawn woman, happy", (Part(2, HAPPY, 2, 1, 1),)),
    "angry": ("A drawn man, angry", (Part(1, ANGRY, 2, 2, 1),)),
    "changing": (
        "A drawn woman: calm, then gone, then happy",
        (Part(4, CALM, 1, 1, 1), None, Part(4, HAPPY, 2, 2, 1)),
    ),
}


def draw(name: str, fallback: Path) -> Path:
    """Find an example's file in the user's cache, or draw it: two seconds of work for each take.

    Args:
        fallback: folder for it where the cache cannot be written.
    """
    import pooch

    folder = Path(pooch.os_cache("cfnsr")) / f"examples-{VERSION}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        folder = fallback
    path = (folder if os.access(folder, os.W_OK) else fallback) / f"{name}.mp4"
    if not path.is_file():
        played = [_play(take) for take in EXAMPLES[name][1]]
        pictures = chain.from_iterable(frames for frames, _ in played)
        write_video(path, pictures, FPS, np.concatenate([sound for _, sound in played]), SAMPLE_RATE)
    return path


def _play(take: Part | None) -> tuple[Iterator[NDArray[np.uint8]], NDArray[np.float32]]:
    """Play a take: its pictures and as much sound."""
    if take is None:
        frames = round(ABSENCE * FPS)
        picture = np.broadcast_to(np.array(WALL, np.uint8), (SIZE[1], SIZE[0], 3))
        return iter([picture] * frames), np.zeros(round(frames / FPS * SAMPLE_RATE), np.float32)
    scene = act(take, SEED)
    _, pictures = paint(scene.person, scene.performance, SIZE, scene.rng)
    return pictures, scene.waveform
