"""The page on OpenFace and speech: its figures recomputed, its sentences held against them."""

import csv
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cfnsr.emotions import LabelSet
from cfnsr.errors import InputError
from cfnsr.evaluation.comparison import Difference
from cfnsr.evaluation.features import page, summary_table
from cfnsr.evaluation.runs import read_runs
from cfnsr.evaluation.sequence import sequence_page
from cfnsr.evaluation.summary import Row, summarise

Fabricate = Callable[..., Path]
SMALL: dict[str, Any] = {"takes": 16, "epochs": 3, "preset": "features"}
SETTINGS = {"pretrain": True, "prepared speech_encoder": "tiny|encoder", "prepared speech_sha256": "5e" * 32}
SKILL = {
    "video+openface": 1.3,
    "audio+speech": 1.7,
    "averaging+openface+speech": 2.5,
    "mmtm+openface+speech": 1.6,
    "cfn_sr+openface+speech": 2.8,
    "cfn_sr_features": 2.6,
}
STANDARDISED = "speakers standardised: needs several takes of each person"
COMMANDS = ("make ravdess-features",)
Lines = list[dict[str, str]]


@pytest.fixture(scope="module")
def runs(fabricate_all: Fabricate, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    for model, skill in SKILL.items():
        for seed in (0, 3) if model in ("cfn_sr_features", "mmtm+openface+speech") else (0,):
            protocols = ("nested", "nested_normalised") if model != "mmtm+openface+speech" else ("nested",)
            about = {"skill": skill, "seed": seed, "settings": SETTINGS, "versions": {"threads": "2"}}
            fabricate_all(folder, (model,), protocols, seconds=10.0 + len(model), **about, **SMALL)
    return folder


@pytest.fixture(scope="module")
def rows(runs: Path) -> list[Row]:
    return summarise(read_runs(runs))


@pytest.fixture(scope="module")
def text(rows: list[Row]) -> str:
    return page(rows, COMMANDS, date="2026-11-23", tried="Nothing else.")


def table(text: str, heading: str) -> Lines:
    """The lines of the first table after a heading."""
    section = text.split(f"\n## {heading}")[1].split("\n## ")[0]
    head, _, *lines = [
        [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip("|"))]
        for line in section.splitlines()
        if line.startswith("|")
    ]
    head = [f"{name} ({place})" if head.index(name) != place else name for place, name in enumerate(head)]
    return [dict(zip(head, line, strict=True)) for line in lines]


Right = dict[
    tuple[str, str, int, int], dict[int, list[bool]]
]  # protocol, model, seed, fold -> actor -> clips


@pytest.fixture(scope="module")
def right(runs: Path) -> Right:
    """Every answer on test clips, read without the package."""
    found: Right = {}
    for path in runs.rglob("predictions.csv"):
        protocol, model, seed, fold = path.parent.relative_to(runs).parts
        of = found.setdefault((protocol, model, int(seed[5:]), int(fold[5:])), {})
        with path.open(newline="") as file:
            for line in csv.DictReader(file):
                if line["split"] == "test":
                    answer = max(list(line)[4:], key=lambda name, line=line: float(line[name]))
                    of.setdefault(int(line["actor"]), []).append(answer == line["label"])
    return found


def by_actor(right: Right, model: str, protocol: str = "nested") -> dict[int, float]:
    answers: dict[int, list[bool]] = {}
    for (of, name, _, _), actors in right.items():
        if (of, name) == (protocol, model):
            for actor, clips in actors.items():
                answers.setdefault(actor, []).extend(clips)
    return {actor: float(np.mean(clips)) for actor, clips in answers.items()}


def p_of(differences: Sequence[float]) -> float:
    signs = np.random.default_rng(7).choice([-1, 1], size=(20_000, len(differences)))
    return float((np.abs(signs @ differences) >= abs(np.sum(differences)) - 1e-9).mean())


def test_every_row_has_both_columns(text: str, right: Right) -> None:
    lines = table(text, "Every row")
    assert {line["model"] for line in lines} == set(SKILL) and len(lines) == len(SKILL)
    assert [line["fusion"] for line in lines[:2]] == ["none", "none"]  # the modalities alone first
    for line in lines:
        for protocol, column in (
            ("nested", "accuracy %"),
            ("nested_normalised", f"accuracy % ({STANDARDISED})"),
        ):
            folds = [
                [
                    np.mean(np.concatenate(list(right[key].values())))
                    for key in right
                    if key[:2] == (protocol, line["model"]) and key[3] == fold
                ]
                for fold in range(1, 7)
            ]
            if not folds[0]:
                assert line[column] == "–"
                continue
            means = [float(np.mean(fold)) for fold in folds]
            assert line[column] == f"{100 * np.mean(means):.1f} ± {100 * np.std(means, ddof=1):.1f}"
    assert lines[0]["encoders"] == "OpenFace" and lines[-1]["encoders"] == "OpenFace and speech"


def test_what_was_done_is_told(text: str) -> None:
    assert "1440 clips, of which 384 of 24 actors are tested" in text
    assert "6 folds of whole actors. In each, 4 actors are tested, 4 others alone choose the epoch" in text
    assert "and 16 train. Nobody" in text and "2026-11-23" in text and "2 threads" in text
    assert r"tiny\|encoder (SHA-256 5e5e5e5e5e5e…)" in text
    assert "## What else was tried\n\nNothing else.\n" in text and "```\nmake ravdess-features\n```" in text
    assert "cfn_sr+openface+speech: trained with seed 0, cfn_sr_features with seeds 0, 3." in text
    assert re.search(r"Seed by seed `cfn_sr_features` has \d\d\.\d \(seed 0\), \d\d\.\d \(seed 3\)\.", text)


def test_the_recipe_was_chosen_on_actors_that_are_tested(
    text: str, tmp_path: Path, fabricate_all: Fabricate
) -> None:
    said = "Nobody who is tested in a fold chooses anything there. The recipe itself"
    assert said in text and "only actors outside them are wholly new to it." in text
    others: list[dict[str, Any]] = [{"preset": "small"}, {"corpus": {"name": "cremad", "clips": 9}}]
    for number, about in enumerate(others):
        folder = fabricate_all(tmp_path / str(number), ("audio+speech",), ("nested",), **SMALL | about)
        other = page(summarise(read_runs(folder)), COMMANDS)
        assert "Nobody who is tested chooses anything." in other and "The recipe" not in other


def test_rows_of_other_numbers_of_seeds_are_told(
    text: str, rows: list[Row], tmp_path: Path, fabricate_all: Fabricate
) -> None:
    (said,) = [line for line in text.splitlines() if line.startswith("Rows have ")]
    assert said.startswith("Rows have 2 or 1 seed (2 seeds: ") and "; the others 1)" in said
    named = said.split("2 seeds: ")[1].split("; the others")[0].split(", ")
    expected = [row.model + (" standardised" if row.caveat else "") for row in rows if len(row.seeds) == 2]
    assert sorted(named) == sorted(expected) and len(named) == 3
    fabricate_all(tmp_path, ("audio+speech",), ("nested",), **SMALL)
    assert "Rows have" not in page(summarise(read_runs(tmp_path)), COMMANDS)


def test_the_winner_is_held_against_all_others(text: str, right: Right) -> None:
    fused = [model for model in SKILL if not model.startswith(("video", "audio"))]
    mean = {model: np.mean(list(by_actor(right, model).values())) for model in fused}
    best = max(fused, key=lambda model: mean[model])
    sentence = next(line for line in text.splitlines() if "has the highest accuracy" in line)
    assert f"(`{best}`) has the highest accuracy of the 4 fused rows, {100 * mean[best]:.1f} %" in sentence
    ours = by_actor(right, best)
    p = {}
    for model in fused:
        if model != best:
            theirs = by_actor(right, model)
            p[model] = p_of([ours[actor] - theirs[actor] for actor in ours])
    order = sorted(p, key=lambda model: p[model])
    corrected = np.maximum.accumulate([p[model] * (len(p) - at) for at, model in enumerate(order)])
    clear = [model for model, value in zip(order, corrected, strict=True) if value < 0.05]
    assert 0 < len(clear) < 3 and f"differences to {len(clear)} of the other 3: " in sentence
    significant, rest = sentence.split("; not to ")
    for model in p:
        named = f"`{model}` ({100 * (mean[best] - mean[model]):+.1f} points"
        assert (named in significant, named in rest) == (model in clear, model not in clear)


@pytest.mark.parametrize(
    ("skill", "said"),
    [
        ((2.2, 2.2, 2.2), "None of its differences to the other 2 is significant"),
        ((1.0, 3.5, 1.2), "All its differences to the other 2 are significant"),
    ],
)
def test_the_sentence_follows_the_figures(
    tmp_path: Path, fabricate_all: Fabricate, skill: tuple[float, ...], said: str
) -> None:
    models = ("averaging+openface+speech", "msaf+openface+speech", "mmtm+openface+speech")
    for model, strength in zip(models, skill, strict=True):
        fabricate_all(tmp_path, (model,), ("nested",), skill=strength, **SMALL)
    text = page(summarise(read_runs(tmp_path)), COMMANDS)
    assert said in text
    assert ("these actors do not tell" in text) is said.startswith("None")
    # Without the model declared beforehand no goal of the fused one can be reached.
    assert {line["outcome"] for line in table(text, "Goals")} == {"not run"}


def test_goals_are_of_the_model_declared_beforehand(text: str, right: Right) -> None:
    lines = {line["goal"].split(" (")[0]: line for line in table(text, "Goals")}
    speech, seen = (by_actor(right, model) for model in ("audio+speech", "video+openface"))
    ours = by_actor(right, "cfn_sr_features")
    standardised = by_actor(right, "cfn_sr_features", "nested_normalised")
    mean = {name: 100 * np.mean(list(values.values())) for name, values in (("s", speech), ("v", seen))}
    assert mean["s"] > mean["v"]
    measured = {
        "speech alone": (mean["s"], 74),
        "OpenFace alone": (mean["v"], 62),
        "fused": (100 * np.mean(list(ours.values())), 86),
        "fused, standardised": (100 * np.mean(list(standardised.values())), 92),
        "fused less best single": (100 * np.mean([ours[actor] - speech[actor] for actor in ours]), 8),
    }
    outcomes = set()
    for goal, (value, asked) in measured.items():
        line = lines[goal]
        assert line["measured"] == f"{value:.1f}" and line["asked"] == f"{asked}"
        word = "reached" if value >= asked else "missed"
        outcomes.add(word)
        assert line["outcome"] == f"{word} by {abs(value - asked):.1f}"
    assert outcomes == {"reached", "missed"}
    assert lines["fused"]["model"] == "cfn_sr_features"
    assert STANDARDISED in next(
        line["goal"] for line in table(text, "Goals") if "standardised" in line["goal"]
    )
    gain = measured["fused less best single"][0]
    assert f"`cfn_sr_features` lies {gain:.1f} points above speech alone, the better single modality" in text


def test_time_is_told_with_that_of_the_encoders(text: str) -> None:
    alone = {model: 10.0 + len(model) for model in SKILL}
    whole = alone["cfn_sr_features"] + alone["video+openface"] + alone["audio+speech"]
    line = next(line for line in table(text, "Training time") if line["model"] == "cfn_sr+openface+speech")
    assert line["seconds a fold"] == line["longest"] == f"{alone['cfn_sr+openface+speech']:.1f}"
    goal = table(text, "Goals")[-1]
    # The seed without encoders of its own cost less than the one with them.
    assert goal["measured"] == f"{whole:.0f}" and goal["outcome"] == "reached"


def test_confusion_and_actors_are_those_of_the_best_row(text: str, rows: list[Row], right: Right) -> None:
    found = re.search(r"that were called so; `(.*?)`, nested", text)
    assert found is not None
    best = found[1]
    (row,) = [row for row in rows if (row.model, row.protocol) == (best, "nested")]
    lines = table(text, text.split("\n## ")[5].splitlines()[0])
    assert [line["acted"] for line in lines] == list(row.emotions)
    pooled = np.zeros((8, 8))
    for run in row.runs:
        np.add.at(pooled, (run.test.labels, run.test.log_probabilities.argmax(axis=1)), 1 / len(row.seeds))
    for line, counts in zip(lines, pooled, strict=True):
        shares = [f"{100 * share:.0f}" for share in counts / counts.sum()]
        assert [line[name] for name in row.emotions] == shares and line["clips"] == f"{counts.sum():.0f}"
    actors = table(text, "Actor by actor")
    expected = by_actor(right, best)
    assert {int(line["actor"]): line["accuracy %"] for line in actors} == {
        actor: f"{100 * value:.1f}" for actor, value in expected.items()
    }


def test_calibration_before_and_after(text: str, rows: list[Row]) -> None:
    for line in table(text, "Calibration"):
        (row,) = [row for row in rows if (row.model, row.protocol) == (line["model"], "nested")]
        raw = row.spreads["ece"]
        assert raw.std is not None
        assert line["ECE %, raw"] == f"{100 * raw.mean:.1f} ± {100 * raw.std:.1f}"
        folds: dict[int, list[float]] = {}
        for run in row.runs:
            true = run.test.log_probabilities[np.arange(len(run.test.labels)), run.test.labels]
            folds.setdefault(run.fold, []).append(-true.mean())
        assert line["NLL, raw"].startswith(f"{np.mean([np.mean(fold) for fold in folds.values()]):.2f}")


def test_the_table_for_the_readme(rows: list[Row], text: str) -> None:
    lines = summary_table(rows).splitlines()
    assert len(lines) == 2 + len(SKILL) and STANDARDISED in lines[0]
    assert lines[2].startswith("| OpenFace alone (video+openface) | ")
    accuracy = {line["model"]: line["accuracy %"] for line in table(text, "Every row")}
    assert lines[-1].split(" | ")[1] in accuracy.values()


def test_only_nested_rows_of_one_corpus(tmp_path: Path, fabricate_all: Fabricate) -> None:
    fabricate_all(tmp_path, ("audio+speech",), ("nested_normalised",), **SMALL)
    with pytest.raises(InputError, match="no row was run under the nested protocol"):
        page(summarise(read_runs(tmp_path)), COMMANDS)
    fabricate_all(tmp_path, ("audio+speech",), ("nested",), corpus={"name": "other", "clips": 3}, **SMALL)
    with pytest.raises(InputError, match="differ in corpus: expected runs of one corpus"):
        page(summarise(read_runs(tmp_path)), COMMANDS)


def test_names_are_text(tmp_path: Path, fabricate: Fabricate) -> None:
    labels = LabelSet("<b>", ("<i>calm", "a|b", "[x](y)"))
    for fold in (1, 2):
        for model in ("averaging+openface+speech", "cfn_sr+openface+speech"):
            fabricate(
                tmp_path,
                model,
                fold=fold,
                labels=labels,
                corpus={"name": "<img src=x>|", "clips": 9},
                settings={"prepared speech_encoder": "<script>`"},
                versions={"threads": "<q>"},
                **SMALL | {"preset": "[p](q)"},
            )
    text = page(summarise(read_runs(tmp_path)), COMMANDS, date="<date>")
    assert not re.search(r"<(?!\s)", text) and not re.search(r"(?<!\\)\]\(", text)
    assert "2 of 6 folds" in text  # figures of a part are said to be that
    assert len(table(text, text.split("\n## ")[4].splitlines()[0])) == 3


def test_a_sequence_against_its_mean(tmp_path: Path, fabricate_all: Fabricate) -> None:
    about = {"settings": {"prepared openface": "frames", "openface_steps": 12}, **SMALL}
    frames = fabricate_all(
        tmp_path / "frames",
        ("cfn_sr_features", "video+openface"),
        ("leave_one_actor_out",),
        skill=2.2,
        **about,
    )
    means = fabricate_all(
        tmp_path / "means",
        ("cfn_sr_features",),
        ("leave_one_actor_out",),
        skill=1.2,
        settings={"lr": 1},
        **SMALL,
    )
    of_frames, of_means = (summarise(read_runs(folder)) for folder in (frames, means))
    text = sequence_page(of_frames, of_means, ("one", "two"))
    (line,) = table("\n" + text, "A sequence")
    assert line["model"] == "cfn_sr_features"  # the other was run in one way alone
    (ours,) = [row for row in of_frames if row.model == "cfn_sr_features"]
    each = [ours.accuracy_of[actor] - of_means[0].accuracy_of[actor] for actor in (1, 2, 3, 4)]
    assert line["actor by actor"] == ", ".join(f"{100 * value:+.1f}" for value in each).replace("-", "−")
    assert line["sequence less mean, points"].startswith(f"{100 * np.mean(each):+.1f} (".replace("-", "−"))
    flips = np.array(np.meshgrid(*[[-1, 1]] * 4)).reshape(4, -1).T @ each
    assert line["p"] == f"{np.mean(np.abs(flips) >= abs(sum(each)) - 1e-9):.3f}"
    assert "the least p that the sign-flip test can give is 0.125: it cannot show a difference here" in text
    assert "every frame" not in text and "once with the take's frames averaged in 12 equal parts" in text
    assert "64 takes of 4 actors" in text and "```\none\ntwo\n```" in text
    assert "lr not told and 1" in text and "prepared" not in text  # what else was different is told
    assert "## A sequence against its own mean" in page_with(text, of_frames, tmp_path, fabricate_all)


def page_with(sequence: str, rows: list[Row], folder: Path, fabricate_all: Fabricate) -> str:
    fabricate_all(folder / "nested", ("audio+speech",), ("nested",), **SMALL)
    nested = summarise(read_runs(folder / "nested"))
    return page([*nested, *rows], COMMANDS, sequence=sequence)


def test_a_sequence_needs_the_same_takes(tmp_path: Path, fabricate_all: Fabricate) -> None:
    def rows(name: str, protocol: str, takes: int) -> list[Row]:
        folder = fabricate_all(tmp_path / name, ("video+openface",), (protocol,), takes=takes, epochs=3)
        return summarise(read_runs(folder))

    frames = rows("frames", "leave_one_actor_out", 16)
    with pytest.raises(InputError, match="tested other clips"):
        sequence_page(frames, rows("fewer", "leave_one_actor_out", 8))
    with pytest.raises(InputError, match="no model was run under the leave_one_actor_out protocol with"):
        sequence_page(frames, rows("nested", "nested", 16))


def test_a_difference_is_not_told_of_few_actors(tmp_path: Path, fabricate: Fabricate) -> None:
    for model in SKILL:
        fabricate(tmp_path, model, skill=2.0, **SMALL)
    rows = summarise(read_runs(tmp_path))
    assert not any(isinstance(row.versus, Difference) for row in rows)
    text = page(rows, COMMANDS)
    assert "4 actors in common, of fewer than 6 nothing can be told" in text
    assert "significant" not in text and "too few actors for a test" in text


def together(runs: Path, model: str, protocol: str, split: str) -> float:
    """Accuracy of the tempered seeds' mean, mean over folds, read without the package."""
    folds: dict[str, dict[str, list[np.ndarray]]] = {}
    truth: dict[str, int] = {}
    for path in (runs / protocol / model).rglob("predictions.csv"):
        temperature = json.loads((path.parent / "run.json").read_text()).get("temperature") or 1
        with path.open(newline="") as file:
            for line in csv.DictReader(file):
                if line["split"] == split:
                    names = list(line)[4:]
                    logs = np.array([float(line[name]) for name in names]) / temperature
                    kept = logs - np.log(np.exp(logs).sum())
                    folds.setdefault(path.parent.name, {}).setdefault(line["clip"], []).append(kept)
                    truth[line["clip"]] = names.index(line["label"])
    return float(
        np.mean(
            [
                np.mean([np.mean(of, axis=0).argmax() == truth[clip] for clip, of in clips.items()])
                for clips in folds.values()
            ]
        )
    )


def test_the_seeds_as_an_ensemble(text: str, runs: Path, right: Right) -> None:
    lines = table(text, "The seeds as an ensemble")
    assert [(line["model"], line["protocol"].split()[0]) for line in lines] == [
        ("mmtm+openface+speech", "nested"),
        ("cfn_sr_features", "nested"),
        ("cfn_sr_features", "nested_normalised"),
    ]
    for line in lines:
        model, protocol = line["model"], line["protocol"].split()[0]
        assert line["seeds"] == "2"
        for split, column in (("validation", "together, inner %"), ("test", "together, test %")):
            expected = 100 * together(runs, model, protocol, split)
            assert float(line[column].split(" ")[0]) == pytest.approx(expected, abs=0.051)
        alone = 100 * np.mean(
            [
                np.mean([clip for clips in actors.values() for clip in clips])
                for (of, name, _, _), actors in right.items()
                if (of, name) == (protocol, model)
            ]
        )
        assert float(line["one alone, test %"]) == pytest.approx(float(alone), abs=0.051)
        low, high = map(float, line["95 % interval by actor"].split(" to "))
        assert low < float(line["together, test %"].split(" ")[0]) < high
        if protocol != "nested":
            assert "needs several takes" in line["protocol"]


def test_one_seed_is_no_ensemble(rows: Sequence[Row], tmp_path: Path, fabricate_all: Fabricate) -> None:
    fabricate_all(tmp_path, ("cfn_sr_features",), ("nested",), settings=SETTINGS, **SMALL)
    assert "ensemble" not in page(summarise(read_runs(tmp_path)), COMMANDS)
