"""The page on protocols: a ladder of habits with figures that can be recomputed."""

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cfnsr.data.folds import PROTOCOLS, random_folds
from cfnsr.errors import InputError
from cfnsr.evaluation.comparison import paired_interval
from cfnsr.evaluation.habits import COMMANDS, HABITS, page
from cfnsr.evaluation.runs import read_runs
from cfnsr.evaluation.summary import Row, summarise

Fabricate = Callable[..., Path]
SMALL = {"takes": 16, "epochs": 3}


@pytest.fixture(scope="module")
def rows(fabricate_all: Fabricate, tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    folder = tmp_path_factory.mktemp("runs")
    fabricate_all(folder, ("audio",), [habit.protocol for habit in HABITS], **SMALL)
    fabricate_all(folder, ("video",), ("nested",), **SMALL)
    return summarise(read_runs(folder))


def ladder(text: str) -> dict[str, dict[str, str]]:
    head, _, *lines = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text.splitlines()
        if line.startswith("|")
    ]
    return {line[0]: dict(zip(head[1:], line[1:], strict=True)) for line in lines}


def row_of(rows: Sequence[Row], protocol: str) -> Row:
    (found,) = [row for row in rows if (row.model, row.protocol) == ("audio", protocol)]
    return found


def test_every_protocol_that_flatters_is_a_habit() -> None:
    flattering = {name for name, other in PROTOCOLS.items() if other.leaks or other.selected_on == "test"}
    assert {habit.protocol for habit in HABITS} == {"nested", *flattering}
    assert len(COMMANDS) == len(HABITS)


def test_a_line_for_every_habit_with_its_caveat(rows: list[Row]) -> None:
    text = page(rows)
    found = ladder(text)
    assert list(found) == [
        "honest: nested",
        "honest: last epoch",
        "best epoch on test",
        "the paper's protocol",
        "actors on both sides",
        "takes on both sides",
    ]
    for habit in HABITS:
        row = row_of(rows, habit.protocol)
        cells = found[habit.name]
        assert cells["caveat"] == (row.caveat or "none")
        assert cells["accuracy %"].startswith(f"{100 * row.spreads['accuracy'].mean:.1f} ±")
        assert habit.about in text
    assert found["honest: nested"]["adds, in points"] == "–"
    assert "## audio" in text and "## video" not in text  # run under one protocol alone
    assert all(command in text for command in COMMANDS)


def test_what_a_habit_adds_is_paired_by_actor(rows: list[Row]) -> None:
    honest = row_of(rows, "nested").accuracy_of
    found = ladder(page(rows))
    for habit in HABITS[1:]:
        ours = row_of(rows, habit.protocol).accuracy_of
        mean = np.mean([ours[actor] - honest[actor] for actor in ours])
        cell = found[habit.name]["adds, in points"]
        assert cell.startswith(f"{100 * mean:+.1f} (".replace("-", "−"))
        assert ("20 actors" in cell) is (habit.protocol == "paper")  # the others test all 24


def test_the_last_epoch_is_read_from_the_history(rows: list[Row]) -> None:
    row = row_of(rows, "best_epoch_on_test")
    last = [run.history[-1]["test_accuracy"] for run in row.runs]
    cells = ladder(page(rows))["honest: last epoch"]
    assert cells["accuracy %"] == f"{100 * np.mean(last):.1f} ± {100 * np.std(last, ddof=1):.1f}"
    assert cells["caveat"] == "none" and cells["95 % interval by actor"] == "–"
    # Where the history tells nothing of the test, nothing is said.
    assert "last epoch" not in "".join(ladder(page([r for r in rows if r.protocol != row.protocol])))


def test_a_step_further_is_held_against_the_line_it_starts_from(rows: list[Row]) -> None:
    text = page(rows)
    found = ladder(text)
    names = {habit.protocol: habit.name for habit in HABITS}
    assert {habit.protocol: habit.over for habit in HABITS if habit.over} == {
        "paper": "best_epoch_on_test",
        "repeated_takes": "shared_actors",
    }
    for habit in HABITS:
        cell = found[habit.name]["adds, in points"]
        if not habit.over:
            assert "over" not in cell
            continue
        base, ours = (row_of(rows, protocol).accuracy_of for protocol in (habit.over, habit.protocol))
        differences = np.array([ours[actor] - base[actor] for actor in ours])
        low, high = paired_interval(differences) or (np.nan, np.nan)
        told = f"{100 * differences.mean():+.1f} ({100 * low:+.1f} to {100 * high:+.1f})".replace("-", "−")
        assert cell.split("; ")[1].startswith(f"over '{names[habit.over]}' {told}")
        # What changes beside the habit stands in its line and, for the highest line, in the sentence.
        assert habit.besides and found[habit.name]["what is done"].endswith(f"and with it {habit.besides}")
    assert f"with the habit come {HABITS[-1].besides}." in text
    assert "only the habit changes" not in text and "twice the optimiser steps" in HABITS[-1].about


def test_eight_of_nine_takes_are_trained_on_where_each_counts_twice() -> None:
    """The shares that the text tells, counted on RAVDESS's numbers."""
    takes = {f"{take}{again}": None for take in range(1440) for again in ("", " (again)")}
    fold = random_folds(takes)[0]

    def distinct(part: Sequence[Any]) -> set[str]:
        return {unit.removesuffix(" (again)") for unit in part}

    train = distinct(fold.train)
    assert len(fold.train) == 2 * 960
    assert len(train) / 1440 == pytest.approx(8 / 9, abs=0.02)
    seen = [unit.removesuffix(" (again)") in train for unit in map(str, fold.test)]
    assert np.mean(seen) == pytest.approx(2 / 3, abs=0.05)


@pytest.mark.parametrize(
    ("model", "settings", "honest"),
    [
        ("audio", {}, True),
        ("audio", {"pretrain": True}, True),  # of one modality: there is nothing to start from
        ("cfn_sr", {"pretrain": False}, True),
        ("cfn_sr", {"pretrain": True}, False),  # its encoders' epoch was chosen on the test fold
        ("cfn_sr", {}, False),
        ("my_own", {}, False),
        ("my_own", {"pretrain": False}, True),
    ],
)
def test_a_last_epoch_is_honest_only_of_what_was_trained_from_nothing(
    tmp_path: Path, fabricate: Fabricate, model: str, settings: dict[str, Any], honest: bool
) -> None:
    for protocol in ("nested", "best_epoch_on_test"):
        fabricate(tmp_path, model, protocol, settings=settings, **SMALL)
    assert ("honest: last epoch" in ladder(page(summarise(read_runs(tmp_path))))) is honest


def test_the_last_epoch_of_other_folds_is_not_compared(tmp_path: Path, fabricate: Fabricate) -> None:
    for protocol, fold in (("nested", 1), ("nested", 2), ("best_epoch_on_test", 1)):
        fabricate(tmp_path, "audio", protocol, fold, **SMALL)
    cells = ladder(page(summarise(read_runs(tmp_path))))["honest: last epoch"]
    assert cells["adds, in points"] == "–" and "(1 of 6 folds)" in cells["accuracy %"]


def test_other_seeds_are_not_compared_and_all_are_printed(tmp_path: Path, fabricate: Fabricate) -> None:
    for protocol, seed in (("nested", 0), ("nested", 7), ("best_epoch_on_test", 0), ("paper", 0)):
        fabricate(tmp_path, "audio", protocol, seed=seed, **SMALL)
    text = page(summarise(read_runs(tmp_path)))
    assert "seeds 0, 7 (honest: nested), seed 0 (best epoch on test), seed 0 (the paper's protocol)." in text
    found = ladder(text)
    why = "not compared: trained with seed 0, 'honest: nested' with seeds 0, 7"
    assert found["best epoch on test"]["adds, in points"] == why
    first, second = found["the paper's protocol"]["adds, in points"].split("; ")
    assert first == why and re.match(r"over 'best epoch on test' [+−]\d", second)
    assert found["honest: last epoch"]["adds, in points"] == "–"
    assert "with the same model" not in text  # no line is left to go up to


def test_what_other_trainings_would_move_is_told(rows: list[Row]) -> None:
    text = page(rows)
    assert "seed 0 in every line" in text
    assert "another number of threads" in text and "one to two points" in text
    assert "03-01-03-01-02-01-07 and 03-01-03-01-02-02-07" in text
    elsewhere = [replace_corpus(row, "synthetic") for row in rows]
    assert "03-01-03" not in page(elsewhere)


def replace_corpus(row: Row, corpus: str) -> Row:
    runs = tuple(replace(run, corpus=corpus) for run in row.runs)
    return replace(row, tally=replace(row.tally, runs=runs))


def test_hostile_names_come_out_harmless(rows: list[Row]) -> None:
    text = page([replace_corpus(row, "<img src=x> [x](javascript:alert(1)) `{raw}` |") for row in rows])
    assert "<img" not in text and not re.search(r"(?<!\\)\]\(javascript", text)
    assert "Corpus &lt;img src=x&gt; \\[x\\](javascript:alert(1)) \\`{raw}\\` \\|, 24 actors" in text


def test_the_commands_may_be_given(rows: list[Row]) -> None:
    text = page(rows, ["make protocols"])
    assert "make protocols" in text and COMMANDS[0] not in text


def test_one_protocol_alone_is_no_ladder(rows: list[Row]) -> None:
    with pytest.raises(InputError, match="several protocols"):
        page([row for row in rows if row.model == "video"])


def test_without_the_honest_figure_nothing_is_added_to(rows: list[Row]) -> None:
    text = page([row for row in rows if row.protocol != "nested"])
    assert "The honest figure is missing" in text
    told = [cells["adds, in points"].split("; ") for cells in ladder(text).values()]
    assert all(first == "–" and all(cell.startswith("over ") for cell in more) for first, *more in told)


def test_runs_of_other_settings_are_no_ladder(tmp_path: Path, fabricate: Fabricate) -> None:
    fabricate(tmp_path, protocol="nested", **SMALL)
    fabricate(tmp_path, protocol="paper", preset="small", **SMALL)
    with pytest.raises(InputError, match="differ in preset"):
        page(summarise(read_runs(tmp_path)))


@pytest.mark.parametrize(
    ("about", "said"),
    [
        ({"settings": {"learning_rate": 1e-4}}, r"differ in learning_rate \(0.001 and 0.0001\)"),
        ({"settings": {"learning_rate": 1e-3, "batch": 4}}, r"differ in batch \(not told and 4\)"),
        ({"source": "0f" * 32}, "differ in source"),
        ({"corpus": {"name": "ravdess", "clips": 1439}}, "differ in clips"),
    ],
)
def test_only_the_protocol_may_differ(
    tmp_path: Path, fabricate: Fabricate, about: dict[str, Any], said: str
) -> None:
    common = {"settings": {"learning_rate": 1e-3}, **SMALL}
    fabricate(tmp_path, protocol="nested", **common)
    fabricate(tmp_path, protocol="paper", **(common | about))
    with pytest.raises(InputError, match=said):
        page(summarise(read_runs(tmp_path)))


def test_the_page_is_plain_markdown(rows: list[Row]) -> None:
    text = page(rows)
    assert text.endswith("\n") and not re.search(r"[ \t]$|nan", text, flags=re.MULTILINE)
    for line in text.splitlines():
        assert not line.startswith("|") or line.count("|") == 7
