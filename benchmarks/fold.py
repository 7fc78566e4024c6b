"""One fold of a model of features: a corpus of RAVDESS's size, whose features are random."""

import math
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.measure import Figure, Goal, Progress
from benchmarks.subjects import CFNSR
from cfnsr.data.store import Header, Store
from cfnsr.emotions import RAVDESS
from cfnsr.errors import InputError
from cfnsr.features.preparation import Preparation
from cfnsr.media.fingerprint import SOUND_MAP
from cfnsr.media.openface import ACTION_UNITS

ACTORS, TAKES = 24, 60
STATES = 5, 40, 384  # layers, steps and width of Whisper tiny
SPEECH = math.prod(STATES)
VARIETY = 100_000  # beginnings of a take's speech among the numbers that were drawn


def features(progress: Progress) -> list[Figure]:
    """`cfn_sr_features` on one fold by the preset `features`: both encoders, the fusion, and the test."""
    progress("one fold of cfn_sr_features")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder / "prepared", ACTORS, TAKES)
        options = ["--data", str(folder / "prepared"), "--preset", "features", "--out", str(folder / "run")]
        started = time.perf_counter()
        command = [*CFNSR, "train", "cfn_sr_features", *options]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        seconds = time.perf_counter() - started
    if done.returncode:
        raise InputError(f"cfnsr train: {done.stderr.strip().splitlines()[-1]}")
    return [Figure(f"one fold of `cfn_sr_features`, {ACTORS * TAKES} takes", seconds, goal=Goal(60))]


def write(folder: Path, actors: int, takes: int) -> Store:
    """Write a store of action units and hidden states of speech, drawn at random."""
    preparation = Preparation(
        modalities=("openface", "speech"), speech_encoder="random", speech_sha256="0" * 64
    )
    store, rng = Store.create(folder, "random", RAVDESS, preparation.as_json()), np.random.default_rng(0)
    speech = rng.standard_normal(VARIETY + SPEECH).astype(np.float16)
    for number in range(actors * takes):
        actor, place = divmod(number, takes)
        name, sex = f"{actor + 1:02d}-{place:02d}", ("male", "female")[actor % 2]
        first, slow, quick = (speech[begin : begin + SPEECH] for begin in rng.integers(0, VARIETY, 3))
        tensors: dict[str, np.ndarray] = {
            "speech": first.reshape(STATES),
            "speech_0.9": slow.reshape(STATES),
            "speech_1.1": quick.reshape(STATES),
            "openface": rng.uniform(0, 3, (1, len(ACTION_UNITS))).astype(np.float32),
            "openface_times": np.zeros(1),
            "confidence": np.ones(1, np.float32),
            "sound_map": rng.integers(0, 2, SOUND_MAP, dtype=np.uint8),
            "level": np.zeros(1, np.float32),
            "duration": np.full(1, 3.3),
        }
        source = {"file": name, "bytes": 1, "mtime_ns": 0, "sha256": f"{number:064d}"}
        sources = {"openface": source, "audio": source}
        emotion = RAVDESS.emotions[place % 8]
        store.write(Header(name, emotion, actor + 1, sex, {}, sources, preparation.as_json()), tensors)
    return store
