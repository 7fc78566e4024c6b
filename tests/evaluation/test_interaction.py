"""The audit of the exchange in the report: effects by hand, and the late rule that validation chooses."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cfnsr.evaluation.comparison import Difference
from cfnsr.evaluation.paper_tables import audit, tables
from cfnsr.evaluation.results import results
from cfnsr.evaluation.rows import Row, summarise
from cfnsr.evaluation.runs import read_runs
from cfnsr.training.interaction import DISTURBANCES

Fabricate = Callable[..., Path]
Disturb = Callable[[Path, str, int], None]
SMALL = {"takes": 12, "epochs": 3}
LATE = {"multiplication": 1.0, "averaging": 2.2}  # by how much the right emotion stands out


@pytest.fixture(scope="module")
def rows(
    fabricate_all: Fabricate, disturb: Disturb, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Row]:
    runs = tmp_path_factory.mktemp("runs")
    for model, skill in LATE.items():
        fabricate_all(runs, (model,), ("nested",), skill=skill, **SMALL)
    fabricate_all(runs, ("video", "cfn_sr", "mmtm"), ("nested",), **SMALL)
    for fold in (runs / "nested" / "cfn_sr" / "seed_0").iterdir():
        for how, every in zip(DISTURBANCES, (2, 4, 1000), strict=True):
            disturb(fold, how, every)
    for about in (runs / "nested" / "cfn_sr" / "seed_0").glob("*/run.json"):
        about.write_text(about.read_text().replace('"seconds"', '"attention_entropy": 0.75, "seconds"'))
    return {row.model: row for row in summarise(read_runs(runs))}


def test_effects_are_shares_of_answers_and_changes_of_probabilities(rows: dict[str, Row]) -> None:
    found = rows["cfn_sr"].interaction
    assert found is not None and not found.inert and found.entropy == 0.75
    for how, every in zip(DISTURBANCES, (2, 4, 1000), strict=True):
        shares, moves = [], []
        for run in rows["cfn_sr"].runs:
            before = np.exp(run.test.log_probabilities)
            after = before.copy()
            after[::every] = np.roll(before[::every], 1, axis=1)
            shares.append(np.mean(after.argmax(axis=1) != before.argmax(axis=1)))
            moves.append(np.mean(np.abs(after - before)))
        assert (
            found.effects[how].changed == pytest.approx(np.mean(shares)) == pytest.approx(1 / every, abs=0.02)
        )
        assert found.effects[how].moved == pytest.approx(np.mean(moves), rel=1e-4)


def test_the_late_rule_is_chosen_on_validation(rows: dict[str, Row]) -> None:
    for model in ("cfn_sr", "mmtm"):
        found = rows[model].interaction
        assert found is not None and found.late == "averaging" and isinstance(found.beyond, Difference)
        ours, theirs = (rows[name].estimates["accuracy"].mean for name in (model, "averaging"))
        assert found.beyond.mean == pytest.approx(ours - theirs)
    late = rows["averaging"].interaction
    assert late is not None and late.late == "multiplication" and late.effects == {}
    assert rows["video"].interaction is None


def test_it_stands_in_the_report(rows: dict[str, Row]) -> None:
    row = next(row for row in results(list(rows.values()))["rows"] if row["model"] == "cfn_sr")
    assert set(row["interaction"]) == {*DISTURBANCES, "entropy", "inert", "late", "beyond_late", "reason"}
    text = tables(list(rows.values()), ())
    line = next(line for line in text.splitlines() if line.startswith("| cfn_sr |") and "0.750" in line)
    found = rows["cfn_sr"].interaction
    assert found is not None
    assert all(str(cell) in line for cell in audit(found).values()) and "averaging" in line
    effect = found.effects["other_audio"]
    assert f"| {100 * effect.changed:.1f} ({100 * effect.moved:.2f}) |" in line
    assert "no effect" not in text and "| has an effect |" in line


def test_an_exchange_that_changes_nothing_is_called_inert(
    fabricate: Fabricate, disturb: Disturb, tmp_path: Path
) -> None:
    disturb(fabricate(tmp_path, "cfn_sr", takes=32, epochs=3), "other_audio", 1000)
    (row,) = summarise(read_runs(tmp_path))
    assert row.interaction is not None and row.interaction.inert
    assert row.interaction.beyond == "no late rule on these encoders was run"
    assert "| no effect |" in tables([row], ())


def test_p_beyond_late_fusion_is_corrected_for_all_rows(rows: dict[str, Row]) -> None:
    """Holm's: the smaller p times two, the larger at least that."""
    versus = [
        found.beyond
        for found in (row.interaction for row in rows.values())
        if found is not None and isinstance(found.beyond, Difference)
    ]
    versus.sort(key=lambda each: each.p)
    expected: list[float] = []
    for at, each in enumerate(versus):
        expected.append(min(1.0, max([*expected, (len(versus) - at) * each.p])))
    assert len(versus) > 2 and [each.p_holm for each in versus] == pytest.approx(expected)


def test_accuracy_of_the_inner_validation_clips(rows: dict[str, Row]) -> None:
    """The mean over the folds, in the results too."""
    row = rows["mmtm"]
    shares = [
        np.mean(run.validation.log_probabilities.argmax(axis=1) == run.validation.labels) for run in row.runs
    ]
    assert row.validation_accuracy == pytest.approx(np.mean(shares))
    assert 0 < np.mean(shares) < 1
    (found,) = (each for each in results([row])["rows"])
    assert found["validation_accuracy"] == row.validation_accuracy
