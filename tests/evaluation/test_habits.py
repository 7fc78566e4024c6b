"""The page on protocols: a ladder of habits with figures that can be recomputed."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from cfnsr.data.folds import PROTOCOLS
from cfnsr.errors import InputError
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


def test_every_protocol_is_a_habit() -> None:
    assert {habit.protocol for habit in HABITS} == set(PROTOCOLS)
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


def test_the_commands_may_be_given(rows: list[Row]) -> None:
    text = page(rows, ["make protocols"])
    assert "make protocols" in text and COMMANDS[0] not in text


def test_one_protocol_alone_is_no_ladder(rows: list[Row]) -> None:
    with pytest.raises(InputError, match="several protocols"):
        page([row for row in rows if row.model == "video"])


def test_without_the_honest_figure_nothing_is_added_to(rows: list[Row]) -> None:
    text = page([row for row in rows if row.protocol != "nested"])
    assert "The honest figure is missing" in text
    assert all(cells["adds, in points"] == "–" for cells in ladder(text).values())


def test_runs_of_other_settings_are_no_ladder(tmp_path: Path, fabricate: Fabricate) -> None:
    fabricate(tmp_path, protocol="nested", **SMALL)
    fabricate(tmp_path, protocol="paper", preset="small", **SMALL)
    with pytest.raises(InputError, match="differ in preset"):
        page(summarise(read_runs(tmp_path)))


def test_the_page_is_plain_markdown(rows: list[Row]) -> None:
    text = page(rows)
    assert text.endswith("\n") and not re.search(r"[ \t]$|nan", text, flags=re.MULTILINE)
    for line in text.splitlines():
        assert not line.startswith("|") or line.count("|") == 7
