"""Temperature, reliability and abstention: what is chosen where, and figures against obvious loops."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cfnsr.errors import InputError
from cfnsr.evaluation.calibration import (
    COVERAGES,
    THRESHOLDS,
    Calibration,
    brier,
    calibrate,
    nll,
    reliability,
)
from cfnsr.evaluation.estimates import tally
from cfnsr.evaluation.metrics import BINS, count
from cfnsr.evaluation.rows import summarise
from cfnsr.evaluation.runs import read_runs
from cfnsr.training.calibration import fit_temperature, tempered
from cfnsr.training.predictions import Predictions
from cfnsr.training.run import Run

Fabricate = Callable[..., Path]


@pytest.fixture(scope="module")
def runs(fabricate_all: Fabricate, tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    """Six nested folds whose model is surer of itself than it should be."""
    return read_runs(fabricate_all(tmp_path_factory.mktemp("runs"), ("video",), ("nested",), epochs=3))


@pytest.fixture(scope="module")
def found(runs: list[Run]) -> Calibration:
    (row,) = summarise(runs)
    return row.calibration


def test_each_folds_temperature_is_that_of_its_validation_clips(found: Calibration, runs: list[Run]) -> None:
    inner = [run.validation for run in runs]
    expected = [fit_temperature(part.log_probabilities, part.labels) for part in inner]
    assert found.temperatures == tuple(expected) and min(expected) > 1.2 and found.reason == ""
    assert len(set(expected)) == 6


def test_test_clips_change_neither_temperature_nor_threshold(found: Calibration, runs: list[Run]) -> None:
    shuffled = [replace(run, test=replace(run.test, labels=np.roll(run.test.labels, 1))) for run in runs]
    (row,) = summarise(shuffled)
    assert row.calibration.temperatures == found.temperatures
    ours, others = ([each.coverage for each in one.abstention] for one in (found, row.calibration))
    assert ours == others
    assert row.calibration.abstention[0].accuracy != found.abstention[0].accuracy


def test_tempering_mends_the_calibration_and_changes_no_answer(found: Calibration) -> None:
    assert found.ece["tempered"].mean < found.ece["raw"].mean - 0.05
    assert found.nll["tempered"].mean < found.nll["raw"].mean
    assert found.brier["tempered"].mean < found.brier["raw"].mean
    counted, raw = found.tallies["tempered"].actors, found.tallies["raw"].actors
    assert np.array_equal(counted.confusion, raw.confusion)
    low, high = found.ece["tempered"].ci95 or (1, 0)
    assert low < found.ece["tempered"].mean < high


def test_figures_are_the_mean_over_folds_of_the_obvious_ones(found: Calibration, runs: list[Run]) -> None:
    losses, squares = [], []
    for run, temperature in zip(runs, found.temperatures, strict=True):
        logs, truth = tempered(run.test.log_probabilities, temperature), run.test.labels
        losses.append(np.mean([-row[label] for row, label in zip(logs, truth, strict=True)]))
        squares.append(np.mean([np.sum(row**2) for row in np.exp(logs) - np.eye(8)[truth]]))
    assert found.nll["tempered"].mean == pytest.approx(np.mean(losses))
    assert found.brier["tempered"].mean == pytest.approx(np.mean(squares))
    assert found.brier["tempered"].std == pytest.approx(np.std(squares, ddof=1))
    assert found.nll["raw"].ci95 is None


def test_abstention_is_that_of_the_obvious_loop(found: Calibration, runs: list[Run]) -> None:
    everything, *chosen = found.abstention
    assert everything.coverage == 1 and everything.wanted == 1
    assert [each.wanted for each in chosen] == list(COVERAGES)
    for each in chosen:
        assert each.wanted is not None
        answered, right = [], []
        for run, temperature in zip(runs, found.temperatures, strict=True):
            inner = np.exp(tempered(run.validation.log_probabilities, temperature)).max(axis=1)
            threshold = np.quantile(inner, 1 - each.wanted)
            assert np.mean(inner >= threshold) == pytest.approx(each.wanted, abs=0.01)
            logs = tempered(run.test.log_probabilities, temperature)
            for row, label in zip(logs, run.test.labels, strict=True):
                answered.append(np.exp(row.max()) >= threshold)
                if answered[-1]:
                    right.append(row.argmax() == label)
        assert each.coverage == pytest.approx(np.mean(answered))
        assert each.coverage == pytest.approx(each.wanted, abs=0.1)
        assert each.accuracy == pytest.approx(np.mean(right))
        assert each.accuracy_ci95 is not None and each.coverage_ci95 is not None
        assert each.accuracy_ci95[0] < each.accuracy < each.accuracy_ci95[1]
        assert each.coverage_ci95[0] < each.coverage < each.coverage_ci95[1]
    accuracies = [each.accuracy for each in found.abstention]
    assert accuracies == sorted(accuracies, key=float)  # sure answers are the better ones


def test_the_curve_is_at_fixed_thresholds(found: Calibration, runs: list[Run]) -> None:
    assert [each.threshold for each in found.curve] == list(THRESHOLDS)
    coverage = [each.coverage for each in found.curve]
    assert coverage == sorted(coverage, reverse=True)
    pairs = zip(runs, found.temperatures, strict=True)
    sure = [np.exp(tempered(run.test.log_probabilities, value)).max(axis=1) for run, value in pairs]
    assert coverage[3] == pytest.approx(np.mean(np.concatenate(sure) >= 0.5))


def test_without_validation_clips_there_is_no_temperature(tmp_path: Path, fabricate_all: Fabricate) -> None:
    fabricate_all(tmp_path, ("audio",), ("paper",), takes=16, epochs=3)
    (row,) = summarise(read_runs(tmp_path))
    found = row.calibration
    assert found.temperatures == () and found.abstention == () and "no validation clips" in found.reason
    assert set(found.ece) == set(found.nll) == set(found.tallies) == {"raw"}
    assert found.ece["raw"] == row.estimates["ece"]
    assert len(found.curve) == len(THRESHOLDS)  # nobody chose these


def test_a_temperature_that_is_not_that_of_the_validation_clips_is_refused(
    tmp_path: Path, fabricate: Fabricate
) -> None:
    folder = fabricate(tmp_path, epochs=3)
    run = Run.read(folder)
    fitted = fit_temperature(run.validation.log_probabilities, run.validation.labels)
    about = json.loads((folder / "run.json").read_text())
    for temperature, fits in ((fitted, True), (fitted * 1.001, True), (fitted * 1.5, False), (None, True)):
        (folder / "run.json").write_text(json.dumps(about | {"temperature": temperature}))
        (row,) = summarise([Run.read(folder)])
        if fits:
            assert row.calibration.temperatures == (fitted,)
        else:
            with pytest.raises(InputError, match=r"temperature .*: its validation clips give") as caught:
                _ = row.calibration
            assert "\n" not in str(caught.value)


def test_a_model_that_answers_nothing_has_no_accuracy() -> None:
    nobody = Predictions((), (), np.zeros(0, dtype=np.int64), np.zeros((0, 3)))
    part = Predictions(("a", "b"), (1, 2), np.array([0, 1]), np.log([[0.4, 0.3, 0.3], [0.4, 0.3, 0.3]]))
    values: dict[str, object] = dict.fromkeys(Run.__dataclass_fields__)
    run = Run(**values | {"fold": 1, "seed": 0, "test": part, "validation": nobody})  # type: ignore[arg-type]
    last = calibrate(tally([run], [part])).curve[-1]
    assert (last.coverage, last.accuracy, last.accuracy_ci95) == (0, None, None)


def test_scores_by_hand() -> None:
    part = Predictions(("a", "b"), (1, 1), np.array([0, 1]), np.log([[0.8, 0.2], [0.6, 0.4]]))
    assert nll(part) == pytest.approx(-(np.log(0.8) + np.log(0.4)) / 2)
    assert brier(part) == pytest.approx((0.2**2 + 0.2**2 + 0.6**2 + 0.6**2) / 2)


def test_a_reliability_diagram_shows_the_bins_that_have_clips() -> None:
    logs = np.log([[0.9, 0.1], [0.92, 0.08], [0.45, 0.55]])
    confidence, right, clips = reliability(count([0, 1, 1], logs).pooled().bins)
    assert clips.tolist() == [1, 2] and right.tolist() == [1, 0.5]
    assert confidence.tolist() == pytest.approx([0.55, 0.91]) and BINS == 15
