"""Temperature scaling against its definition."""

import numpy as np
import pytest

from cfnsr.training.calibration import COLDEST, HOTTEST, among, fit_temperature, tempered


def scores(clips: int, classes: int, sharpness: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Log-probabilities that are right about themselves, made `sharpness` times too sharp; and labels."""
    rng = np.random.default_rng(seed)
    true = tempered(rng.normal(0, 2, (clips, classes)), 1.0)
    drawn = np.exp(true).cumsum(1) > rng.random((clips, 1))
    return tempered(true * sharpness, 1.0), drawn.argmax(1)


def test_tempered_log_probabilities_sum_to_one_and_keep_their_order() -> None:
    logs, _ = scores(50, 5, 3.0)
    softer = tempered(logs, 2.5)
    np.testing.assert_allclose(np.exp(softer).sum(1), 1)
    assert (softer.argsort(1) == logs.argsort(1)).all()
    assert np.exp(softer).max(1).mean() < np.exp(logs).max(1).mean()
    np.testing.assert_allclose(tempered(logs, 1.0), logs)


def test_impossible_classes_stay_finite_or_impossible() -> None:
    out = tempered(np.array([[0.0, -np.inf]]), 0.5)
    assert not np.isnan(out).any() and np.exp(out).tolist() == [[1.0, 0.0]]


@pytest.mark.parametrize("sharpness", [0.5, 1.0, 3.0])
def test_the_sharpness_is_found_again(sharpness: float) -> None:
    assert fit_temperature(*scores(20_000, 4, sharpness)) == pytest.approx(sharpness, rel=0.05)


def test_it_is_the_least_loss_of_a_fine_grid() -> None:
    """Of the clips and one more, which is everything at once: written out, clip by clip."""
    logs, labels = scores(60, 8, 2.0, seed=3)
    grid = np.exp(np.linspace(np.log(COLDEST), np.log(HOTTEST), 2000))
    losses = []
    for value in grid:
        softer = tempered(logs, value)
        known = sum(softer[clip, label] for clip, label in enumerate(labels))
        unknown = softer.mean()
        losses.append(-(known + unknown))
    assert fit_temperature(logs, labels) == pytest.approx(grid[int(np.argmin(losses))], rel=0.005)


@pytest.mark.parametrize("clips", [3, 30, 300])
def test_clips_that_are_all_right_do_not_ask_for_certainty(clips: int) -> None:
    """Of n right and one that could be either, (n + 1/2) / (n + 1) are right."""
    sure = np.log([[0.9, 0.1]] * clips)
    told = np.exp(tempered(sure, fit_temperature(sure, np.zeros(clips, int))))[0, 0]
    assert told == pytest.approx((clips + 0.5) / (clips + 1), abs=1e-3)


def test_a_model_that_is_always_wrong_knows_nothing() -> None:
    wrong = np.log([[0.9, 0.1]] * 5)
    assert fit_temperature(wrong, np.ones(5, int)) == pytest.approx(HOTTEST, rel=0.01)


def test_classes_that_are_ruled_out() -> None:
    logs = np.array([[0.0, -np.inf]] * 4)
    assert COLDEST <= fit_temperature(logs, np.array([0, 0, 0, 1])) <= HOTTEST


def test_classes_that_are_ruled_out_do_not_heat_the_temperature() -> None:
    rng = np.random.default_rng(0)
    logs = np.log(rng.dirichlet([0.3] * 4, 200))
    labels = np.array([rng.choice(4, p=np.exp(row)) for row in logs])
    possible = np.zeros((200, 6), bool)
    possible[:, :4] = True
    wide = among(np.pad(logs, ((0, 0), (0, 2))), possible)
    np.testing.assert_allclose(wide[:, :4], logs, atol=1e-9)
    assert np.exp(wide[:, 4:]).max() == 0
    assert fit_temperature(wide, labels) == pytest.approx(fit_temperature(logs, labels), rel=1e-3)
    assert 0.8 < fit_temperature(wide, labels) < 1.2
