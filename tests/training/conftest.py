"""Stores of made-up clips, of which each modality tells the emotion, and grids that are trained on them."""

import csv
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from accelerate import Accelerator

from cfnsr.data.store import Header, Store
from cfnsr.emotions import LabelSet
from cfnsr.features.preparation import Preparation
from cfnsr.training.config import Recipe
from cfnsr.training.crossval import crossval, plan
from cfnsr.training.job import Job
from cfnsr.training.loop import State, Trainer
from cfnsr.training.prepared import PreparedCorpus

LABELS = LabelSet("three", ("calm", "happy", "angry"))
SIZE = 64
PREPARATION = Preparation(frames=8, size=SIZE, keep=0.7)
FEATURES = Preparation(
    modalities=("openface", "speech"), speech_encoder="tiny", speech_sha256="0" * 64, speech_speeds=(0.9,)
)
TWO = LabelSet("two", ("calm", "angry"))


def _fill(folder: Path, actors: int = 6, takes: int = 2, scrambled: tuple[int, ...] = ()) -> Store:
    """Write a store; the clips of the scrambled actors show and sound of nothing."""
    store = Store.create(folder, "made-up", LABELS, PREPARATION.as_json())
    for actor in range(1, actors + 1):
        for label, emotion in enumerate(LABELS.emotions):
            for take in range(takes):
                rng = np.random.default_rng((actor, label, take))
                video = rng.integers(0, 160, (8, SIZE, SIZE, 3))
                shown = (label + take + 1) % 3 if actor in scrambled else label
                video[:, :, :, shown] += 60
                audio = rng.normal(0, 4, (13, PREPARATION.mfcc_steps))
                audio[shown] += 8
                name = f"{emotion}-{actor}-{take}"
                source = {"file": name, "bytes": 1, "mtime_ns": 1, "sha256": f"hash of {name}"}
                sex, sources = "male" if actor % 2 else "female", {"video": source, "audio": source}
                header = Header(name, emotion, actor, sex, {}, sources, PREPARATION.as_json())
                waveform = rng.integers(-9000, 9000, PREPARATION.samples).astype(np.int16)
                tensors = {
                    "video": video.clip(0, 255).astype(np.uint8),
                    "audio": audio.astype(np.float32),
                    "waveform": waveform,
                }
                store.write(header, tensors)
    return store


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return _fill(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="session")
def pictures(store: Store) -> PreparedCorpus:
    """Pictures and MFCCs of six actors, two takes of each of three emotions."""
    return PreparedCorpus(store)


@pytest.fixture(scope="session")
def fill() -> Callable[..., Store]:
    """Fills a folder with made-up clips."""
    return _fill


def _fill_features(
    folder: Path, changed: tuple[int, ...] = (), names: tuple[str, ...] = ("openface", "speech", "speech_0.9")
) -> Store:
    """Write a store of five actors' features, two takes of each emotion; a changed actor's differ."""
    store = Store.create(folder, "made-up", TWO, FEATURES.as_json())
    for actor in range(1, 6):
        for label, emotion in enumerate(TWO.emotions):
            for take in (1, 2):
                rng = np.random.default_rng((actor, label, take))
                name = f"{emotion}-{actor}-{take}"
                source = {"file": name, "bytes": 1, "mtime_ns": 1, "sha256": f"hash of {name}"}
                tensors: dict[str, np.ndarray] = {
                    "openface": rng.random((7, 35)).astype(np.float32) + label,
                    "speech": (rng.normal(size=(2, 9, 8)) + label).astype(np.float16),
                    "speech_0.9": (rng.normal(size=(2, 10, 8)) + label).astype(np.float16),
                }
                if actor in changed:
                    tensors |= {each: tensors[each][::-1] * tensors[each] - 1 for each in names}
                sources = {"audio": source, "openface": source}
                store.write(Header(name, emotion, actor, None, {}, sources, FEATURES.as_json()), tensors)
    return store


@pytest.fixture(scope="session")
def features(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return _fill_features(tmp_path_factory.mktemp("features"))


@pytest.fixture(scope="session")
def tracks(features: Store) -> PreparedCorpus:
    """OpenFace tracks and a speech encoder's states of five actors, two takes of each of two emotions."""
    return PreparedCorpus(features)


@pytest.fixture(scope="session")
def fill_features() -> Callable[..., Store]:
    """Fills a folder with made-up features."""
    return _fill_features


def _train(
    corpus: PreparedCorpus,
    out: Path,
    *models: str,
    recipe: Recipe,
    protocol: str = "nested",
    folds: Sequence[int] = (1,),
    seeds: Sequence[int] = (0,),
    **options: Any,
) -> list[Path]:
    jobs = plan(models, corpus, protocol=protocol, recipe=recipe, folds=folds, seeds=seeds)
    return crossval(jobs, corpus, out, accelerator=Accelerator(), **options)


@pytest.fixture(scope="session")
def train() -> Callable[..., list[Path]]:
    """Trains models on the first fold, their encoders before them; returns the folders of the runs."""
    return _train


def _job(corpus: PreparedCorpus, model: str, recipe: Recipe, protocol: str = "nested") -> Job:
    return plan([model], corpus, protocol=protocol, recipe=recipe, folds=[1])[-1]


@pytest.fixture(scope="session")
def job_of() -> Callable[..., Job]:
    """Plans one model on the first fold."""
    return _job


def _rows(path: Path, part: str | None = None) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [row for row in rows if part in (None, row.get("split"), row.get("condition"))]


@pytest.fixture(scope="session")
def rows() -> Callable[..., list[dict[str, str]]]:
    """Reads a table of predictions: all of it, or one split or condition."""
    return _rows


def _history(folder: Path, name: str = "history.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


@pytest.fixture(scope="session")
def history() -> Callable[..., list[dict[str, Any]]]:
    """Reads the history of a training."""
    return _history


@pytest.fixture
def cut_off(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], AbstractContextManager[None]]:
    """Within it a grid is cut off before its n-th fit."""

    @contextmanager
    def within(number: int) -> Iterator[None]:
        fit, begun = Trainer.fit, []

        def failing(self: Trainer, *, resume: bool = False) -> State:
            begun.append(self)
            if len(begun) == number:
                raise KeyboardInterrupt
            return fit(self, resume=resume)

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(Trainer, "fit", failing)
            yield

    return within
