"""A folder of runs as `cfnsr crossval` leaves it, made up: nothing is trained here."""

import csv
import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cfnsr.emotions import RAVDESS, LabelSet

PARAMS = {"video": 25_882_056, "audio": 34_024, "cfn_sr": 26_301_417}
SKILL = {"video": 1.6, "audio": 1.3, "cfn_sr": 2.3}

Fabricate = Callable[..., Path]


def fabricate(
    runs: Path,
    model: str = "cfn_sr",
    protocol: str = "nested",
    fold: int = 1,
    seed: int = 0,
    *,
    labels: LabelSet = RAVDESS,
    takes: int = 60,
    epochs: int = 70,
    place: str | None = None,
    phases: bool = False,
    **about: Any,
) -> Path:
    """Write one finished run; further entries replace those of its `run.json`."""
    rng = np.random.default_rng(zlib.crc32(f"{model} {protocol} {fold} {seed}".encode()))
    actors = list(range(1, 25))
    test = actors[4 * fold - 4 : 4 * fold]
    validation = [actors[(4 * fold + offset) % 24] for offset in range(4)] if protocol == "nested" else []
    selected_on = "validation" if protocol == "nested" else "test"
    folder = runs / (place or f"{protocol}/{model}/seed_{seed}/fold_{fold}")
    folder.mkdir(parents=True)
    epoch = int(rng.integers(epochs // 3, epochs + 1))

    with (folder / "predictions.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["clip", "actor", "split", "label", *labels.emotions])
        for split, members in (("validation", validation), ("test", test)):
            for actor in members:
                skill = SKILL.get(model, 1.5) + np.random.default_rng(actor).normal(0, 0.5)
                for take in range(takes):
                    truth = take % len(labels)
                    logits = rng.normal(0, 1.2, len(labels))
                    logits[truth] += skill
                    logits[truth ^ 1 if (truth ^ 1) < len(labels) else 0] += 0.8
                    logits = 1.6 * logits
                    logs = logits - np.log(np.exp(logits).sum())
                    name = f"{actor:02d}-{take:02d}"
                    writer.writerow([name, actor, split, labels.emotions[truth], *map(repr, logs.tolist())])

    history: list[dict[str, Any]] = []
    for phase in ["video", "audio", "fused"] if phases else [None]:
        for number in range(1, epochs + 1):
            done = 1 - np.exp(-number / (epochs / 4))
            entry: dict[str, Any] = {"epoch": number} | ({} if phase is None else {"phase": phase})
            entry |= {"train_loss": 2.1 - 1.8 * done, "train_accuracy": 0.13 + 0.82 * done}
            entry[f"{selected_on}_loss"] = 2.1 - 1.1 * done + 0.1 * rng.random()
            entry[f"{selected_on}_accuracy"] = 0.13 + 0.55 * done + 0.05 * rng.random()
            history.append(entry)
    (folder / "history.jsonl").write_text(
        "".join(json.dumps(entry) + "\n" for entry in history), encoding="utf-8"
    )

    content = {
        "model": model,
        "protocol": protocol,
        "preset": "paper",
        "fold": fold,
        "folds": 6 if protocol == "nested" else 5,
        "seed": seed,
        "params": PARAMS.get(model, 1000),
        "epoch": epoch,
        "epochs": epochs,
        "selected_on": selected_on,
        "labels": {"name": labels.name, "emotions": list(labels.emotions)},
        "train_actors": [actor for actor in actors if actor not in {*test, *validation}],
        "validation_actors": validation,
        "test_actors": test,
        "corpus": {"name": "ravdess", "clips": 1440},
        "settings": {"batch": 16, "learning_rate": 1e-3, "optimiser": "Adam"},
        "versions": {"cfnsr": "0.1.0", "torch": "2.13.0", "python": "3.11.9"},
        "seconds": 1234.5,
        "finished": True,
    } | about
    (folder / "run.json").write_text(json.dumps(content, indent=2), encoding="utf-8")
    return folder


def fabricate_all(runs: Path, models: tuple[str, ...] = ("video", "audio", "cfn_sr"), **about: Any) -> Path:
    """Complete cross-validations of some models under both protocols."""
    for model in models:
        for protocol, folds in (("nested", 6), ("paper", 5)):
            for fold in range(1, folds + 1):
                fabricate(runs, model, protocol, fold, **about)
    return runs


@pytest.fixture(name="fabricate")
def fabricate_fixture() -> Fabricate:
    """Writes one made-up run."""
    return fabricate


@pytest.fixture(scope="session")
def full_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three models under both protocols; read it, do not change it."""
    return fabricate_all(tmp_path_factory.mktemp("runs"), takes=24)
