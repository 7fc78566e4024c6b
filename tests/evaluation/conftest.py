"""A folder of runs as `cfnsr crossval` leaves it, made up: nothing is trained here."""

import csv
import json
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cfnsr.emotions import RAVDESS, LabelSet

PARAMS = {"video": 25_882_056, "audio": 34_024, "cfn_sr": 26_301_417}
SKILL = {"video": 1.6, "audio": 1.3, "cfn_sr": 2.3}
OPTIMISTIC = "optimistic: best epoch on test"
STANDARDISED = "speakers standardised: transductive, needs all emotions of each person in balance"
CAVEATS = {
    "nested": "",
    "nested_normalised": STANDARDISED,
    "leave_one_actor_out": "",
    "paper": OPTIMISTIC,
    "best_epoch_on_test": OPTIMISTIC,
    "shared_actors": "leaky: actors shared between training and test",
    "repeated_takes": "leaky: actors and copies of takes shared between training and test",
}
INFLATION = {"nested_normalised": 0.5, "best_epoch_on_test": 0.3, "shared_actors": 0.6, "repeated_takes": 1.5}
HARM = {  # of the skill, by condition and what the model looks at
    "silent_sound": {"audio": 1.0},
    "noise_20db": {"audio": 0.1},
    "noise_10db": {"audio": 0.3},
    "noise_0db": {"audio": 0.6},
    "no_picture": {"video": 1.0},
    "blurred_face": {"video": 0.2},
    "dark_face": {"video": 0.4},
}
FEW_TAKES = {"five_takes": 0.1, "two_emotions": 0.5, "one_emotion": 0.9}  # likewise, of standardised speakers
ACTORS = range(1, 25)
FEW = range(1, 5)

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
    skill: float | None = None,
    conditions: bool = False,
    **about: Any,
) -> Path:
    """Write one finished run; further entries replace those of its `run.json`.

    Args:
        takes: of each actor.
        skill: how much the true emotion stands out.
        conditions: whether it was scored under bad input.
    """
    rng = np.random.default_rng(zlib.crc32(f"{model} {protocol} {fold} {seed}".encode()))
    skill = SKILL.get(model, 1.5 + zlib.crc32(model.encode()) % 100 / 150) if skill is None else skill
    skill += INFLATION.get(protocol, 0)
    selected_on = "test" if protocol in ("paper", "best_epoch_on_test") else "validation"
    splits = _splits(protocol, fold, takes)
    who = {split: sorted({actor for actor, _, _ in clips}) for split, clips in splits.items()}
    folder = runs / (place or f"{protocol}/{model}/seed_{seed}/fold_{fold}")
    folder.mkdir(parents=True)
    epoch = int(rng.integers(epochs // 3, epochs + 1))

    lines = [
        line for split in ("validation", "test") for line in _lines(splits[split], split, skill, labels, rng)
    ]
    _write(folder / "predictions.csv", "split", labels, lines)
    if conditions:
        reads = (model,) if model in ("video", "audio") else ("video", "audio")
        harms = {
            condition: sum(harm.values()) / len(reads)
            for condition, harm in HARM.items()
            if set(harm) & set(reads) and (len(reads) > 1 or sum(harm.values()) < 1)
        }
        lines = []
        for condition, harm in (FEW_TAKES if protocol.endswith("_normalised") else harms).items():
            lines += _lines(splits["test"], condition, skill * (1 - harm), labels, rng)
        _write(folder / "conditions.csv", "condition", labels, lines)

    history = ""
    for number in range(1, epochs + 1):
        done = 1 - np.exp(-number / (epochs / 4))
        entry = {"epoch": number, "train_loss": 2.1 - 1.8 * done, "train_accuracy": 0.13 + 0.82 * done}
        entry[f"{selected_on}_loss"] = 2.1 - 1.1 * done + 0.1 * rng.random()
        entry[f"{selected_on}_accuracy"] = 0.13 + 0.55 * done + 0.05 * rng.random()
        history += json.dumps(entry) + "\n"
    (folder / "history.jsonl").write_text(history, encoding="utf-8")

    content = {
        "model": model,
        "protocol": protocol,
        "preset": "paper",
        "fold": fold,
        "folds": folds_of(protocol),
        "seed": seed,
        "params": PARAMS.get(model, 1000),
        "epoch": epoch,
        "epochs": epochs,
        "selected_on": selected_on,
        "caveat": CAVEATS[protocol],
        "leaky": CAVEATS[protocol].startswith("leaky"),
        "labels": {"name": labels.name, "emotions": list(labels.emotions)},
        "train_actors": who["train"],
        "validation_actors": who["validation"],
        "test_actors": who["test"],
        "corpus": {"name": "ravdess", "clips": 1440},
        "settings": {"batch": 16, "learning_rate": 1e-3, "optimiser": "Adam"},
        "versions": {"cfnsr": "0.1.0", "torch": "2.13.0", "python": "3.11.9"},
        "seconds": 1234.5,
        "finished": True,
    } | about
    (folder / "run.json").write_text(json.dumps(content, indent=2), encoding="utf-8")
    return folder


def folds_of(protocol: str) -> int:
    """How many folds a protocol deals the 24 actors into, or the four."""
    return {"paper": 5, "leave_one_actor_out": len(FEW)}.get(protocol, 6)


Clip = tuple[int, int, str]  # actor, take, name


def _splits(protocol: str, fold: int, takes: int) -> dict[str, list[Clip]]:
    """The clips of each split: of whole actors, or dealt at random where the protocol leaks."""
    every = [(actor, take, f"{actor:02d}-{take:02d}") for actor in ACTORS for take in range(takes)]
    if protocol in ("shared_actors", "repeated_takes"):
        if protocol == "repeated_takes":
            every += [(actor, take, f"{name} (again)") for actor, take, name in every]
        order = np.random.default_rng(0).permutation(len(every))
        parts = np.array_split(order, 6)
        test, validation = parts[fold - 1], parts[fold % 6]
        train = np.setdiff1d(order, np.concatenate([test, validation]))
        chosen = {"train": train, "validation": validation, "test": test}
        return {split: [every[place] for place in sorted(places)] for split, places in chosen.items()}
    if protocol == "leave_one_actor_out":  # on the first four alone
        part_of = dict.fromkeys(FEW, "train") | {fold % len(FEW) + 1: "validation", fold: "test"}
    else:
        inner = [] if protocol == "paper" else [4 * fold % 24 + offset for offset in range(1, 5)]
        part_of = dict.fromkeys(ACTORS, "train") | dict.fromkeys(inner, "validation")
        part_of |= dict.fromkeys(range(4 * fold - 3, 4 * fold + 1), "test")
    splits = ("train", "validation", "test")
    return {split: [clip for clip in every if part_of.get(clip[0]) == split] for split in splits}


def _lines(
    clips: Sequence[Clip], what: str, skill: float, labels: LabelSet, rng: np.random.Generator
) -> list[list[object]]:
    classes = len(labels)
    if not clips:
        return []
    gift = {actor: np.random.default_rng(actor).normal(0, 0.5) for actor in ACTORS}
    truth = np.array([take % classes for _, take, _ in clips])
    logits = rng.normal(0, 1.2, (len(clips), classes))
    at = np.arange(len(clips))
    logits[at, truth] += skill + np.array([gift[actor] for actor, _, _ in clips])
    logits[at, np.where((truth ^ 1) < classes, truth ^ 1, 0)] += 0.8
    logits *= 1.6  # surer of itself than it should be
    logits -= np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return [
        [name, actor, what, labels.emotions[label], *(f"{value:.7g}" for value in row)]
        for (actor, _, name), label, row in zip(clips, truth, logits.tolist(), strict=True)
    ]


def _write(path: Path, what: str, labels: LabelSet, lines: Sequence[Sequence[object]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        head = ["clip", "actor", what, "label", *labels.emotions]
        csv.writer(file, lineterminator="\n").writerows([head, *lines])


def fabricate_all(
    runs: Path,
    models: Sequence[str] = ("video", "audio", "cfn_sr"),
    protocols: Sequence[str] = ("nested", "paper"),
    **about: Any,
) -> Path:
    """Complete cross-validations of some models under some protocols."""
    for model in models:
        for protocol in protocols:
            for fold in range(1, folds_of(protocol) + 1):
                fabricate(runs, model, protocol, fold, **about)
    return runs


def disturb(folder: Path, how: str, every: int) -> None:
    """Answer each so-many-th test clip by the emotion after its own, with its probabilities moved along."""
    rows = list(csv.reader((folder / "predictions.csv").open()))
    head, tested = rows[0], [row for row in rows[1:] if row[2] == "test"]
    path = folder / "interaction.csv"
    lines = [] if path.exists() else [[*head[:2], "condition", *head[3:]]]
    for number, (clip, actor, _, label, *logs) in enumerate(tested):
        moved = [logs[-1], *logs[:-1]] if number % every == 0 else logs
        lines.append([clip, actor, how, label, *moved])
    with path.open("a", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(lines)


def right_of(folder: Path) -> dict[int, list[bool]]:
    """Read from the predictions below a folder which of each actor's test clips were answered right."""
    right: dict[int, list[bool]] = {}
    for path in sorted(folder.rglob("predictions.csv")):
        with path.open(newline="") as file:
            for line in csv.DictReader(file):
                if line["split"] == "test":
                    answer = max(list(line)[4:], key=lambda name, line=line: float(line[name]))
                    right.setdefault(int(line["actor"]), []).append(answer == line["label"])
    return right


@pytest.fixture(scope="session", name="right_of")
def right_of_fixture() -> Callable[[Path], dict[int, list[bool]]]:
    return right_of


@pytest.fixture(scope="session", name="disturb")
def disturb_fixture() -> Callable[[Path, str, int], None]:
    return disturb


@pytest.fixture(scope="session", name="fabricate")
def fabricate_fixture() -> Fabricate:
    return fabricate


@pytest.fixture(scope="session", name="fabricate_all")
def fabricate_all_fixture() -> Fabricate:
    return fabricate_all


@pytest.fixture(scope="session")
def full_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three models under both protocols; read it, do not change it."""
    return fabricate_all(tmp_path_factory.mktemp("runs"), takes=16, epochs=9, conditions=True)
