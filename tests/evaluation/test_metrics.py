"""The figures against numbers worked out by hand, scikit-learn, and the obvious slow loops."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import balanced_accuracy_score, f1_score, recall_score

from cfnsr.errors import InputError
from cfnsr.evaluation.metrics import (
    FEWEST,
    FIGURES,
    TOO_FEW,
    Floats,
    Ints,
    accuracy,
    average,
    count,
    ece,
    interval,
    macro_f1,
    recalls,
    share_interval,
    uar,
)
from cfnsr.training.calibration import probabilities


def logs_of(probability: list[list[float]]) -> Floats:
    return np.log(np.array(probability))


def sample(clips: int = 600, classes: int = 8, actors: int = 12, seed: int = 0) -> tuple[Ints, Floats, Ints]:
    """Labels, log-probabilities and actors of a middling classifier."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, clips)
    logits = rng.normal(0, 1, (clips, classes))
    logits[np.arange(clips), labels] += 1.5
    logits -= np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return labels, logits, rng.permutation(np.arange(clips) % actors)


def slow_ece(labels: Ints, logs: Floats) -> float:
    total = 0.0
    for step in range(15):
        inside = [
            (max(np.exp(row)), int(row.argmax() == label))
            for row, label in zip(logs, labels, strict=True)
            if step / 15 < max(np.exp(row)) <= (step + 1) / 15
        ]
        if inside:
            confidence, right = np.mean(inside, axis=0)
            total += len(inside) / len(labels) * abs(right - confidence)
    return total


def test_figures_worked_out_by_hand() -> None:
    # Three classes, the third absent: [[2, 1, 0], [1, 3, 1], [0, 0, 0]].
    labels = [0, 0, 0, 1, 1, 1, 1, 1]
    answers = [0, 0, 1, 0, 1, 1, 1, 2]
    counts = count(labels, np.log(np.eye(3)[answers] * 0.7 + 0.1)).pooled()
    assert counts.confusion.tolist() == [[2, 1, 0], [1, 3, 1], [0, 0, 0]]
    assert accuracy(counts) == 5 / 8
    assert uar(counts) == pytest.approx((2 / 3 + 3 / 5) / 2)
    assert macro_f1(counts) == pytest.approx((2 * 2 / (3 + 3) + 2 * 3 / (5 + 4)) / 2)
    assert recalls(counts)[:2].tolist() == pytest.approx([2 / 3, 3 / 5])
    assert math.isnan(recalls(counts)[2])
    assert ece(counts) == pytest.approx(0.8 - 5 / 8)


def test_figures_agree_with_scikit_learn_and_the_slow_loop() -> None:
    labels, logs, _ = sample()
    labels = np.where(labels == 3, 4, labels)  # class 3 is predicted but absent
    answers, present = logs.argmax(axis=1), np.unique(labels)
    counts = count(labels, logs).pooled()
    assert accuracy(counts) == pytest.approx(np.mean(labels == answers))
    with pytest.warns(UserWarning, match="classes not in y_true"):
        assert uar(counts) == pytest.approx(balanced_accuracy_score(labels, answers))
    assert macro_f1(counts) == pytest.approx(f1_score(labels, answers, labels=present, average="macro"))
    assert recalls(counts)[present].tolist() == pytest.approx(
        recall_score(labels, answers, labels=present, average=None).tolist()
    )
    assert ece(counts) == pytest.approx(slow_ece(labels, logs))


@pytest.mark.parametrize("name", FIGURES)
def test_interval_is_that_of_the_slow_jackknife(name: str) -> None:
    labels, logs, actors = sample(clips=200, actors=9)
    slow: dict[str, Callable[..., float]] = {
        "accuracy": lambda y, p, _: np.mean(y == p),
        "uar": lambda y, p, _: recall_score(y, p, labels=np.unique(y), average="macro"),
        "macro_f1": lambda y, p, _: f1_score(y, p, labels=np.unique(y), average="macro"),
        "ece": lambda y, _, logs: slow_ece(y, logs),
    }
    answers = logs.argmax(axis=1)
    without = [
        slow[name](labels[actors != actor], answers[actors != actor], logs[actors != actor])
        for actor in range(9)
    ]
    error = np.sqrt(8 / 9 * np.sum((np.array(without) - np.mean(without)) ** 2))
    middle, reach = slow[name](labels, answers, logs), stats.t.ppf(0.975, 8) * error
    counts = count(labels, logs, actors)
    assert interval(FIGURES[name], counts).tolist() == pytest.approx([middle - reach, middle + reach])
    moved = interval(FIGURES[name], counts, about=0.5)
    assert moved.tolist() == pytest.approx([0.5 - reach, 0.5 + reach])


def test_interval_of_accuracy_is_students_t_over_actors() -> None:
    shares = np.random.default_rng(0).binomial(60, 0.8, 12)
    right = np.arange(60) < shares[:, None]  # (actors, takes)
    logs = np.log(np.where(right[..., None], [0.9, 0.1], [0.1, 0.9])).reshape(-1, 2)
    counts = count(np.zeros(720, int), logs, np.repeat(np.arange(12), 60))
    expected = stats.ttest_1samp(shares / 60, 0).confidence_interval(0.95)
    assert interval(accuracy, counts).tolist() == pytest.approx([expected.low, expected.high])
    assert share_interval(shares, np.full(12, 60)).tolist() == pytest.approx([expected.low, expected.high])


def test_a_share_is_a_ratio_of_sums_and_of_actors_that_have_a_whole() -> None:
    rng = np.random.default_rng(1)
    whole = rng.integers(1, 40, 10)
    part = rng.binomial(whole, 0.7)
    without = [(part.sum() - each) / (whole.sum() - of) for each, of in zip(part, whole, strict=True)]
    reach = stats.t.ppf(0.975, 9) * np.std(without) * 3  # sqrt((n - 1) / n * n) deviations
    middle = part.sum() / whole.sum()
    expected = pytest.approx([middle - reach, middle + reach])
    assert share_interval(part, whole).tolist() == expected
    silent = np.zeros(5, int)
    assert share_interval([*part, *silent], [*whole, *silent]).tolist() == expected
    assert np.isnan(share_interval(part[:7], whole[:7])).all()


@pytest.mark.parametrize("actors", [8, 12, 20, 24])
def test_the_interval_holds_what_it_says_and_percentiles_of_resampled_actors_would_not(actors: int) -> None:
    # As measured on RAVDESS: mean 87 %, accuracies of 60 takes deviate by 10.5 points between actors.
    rng, mean, takes = np.random.default_rng(actors), 0.87, 60
    spread = (0.105**2 - mean * (1 - mean) / takes) / (1 - 1 / takes)  # the rest is the draw of the takes
    strength = mean * (1 - mean) / spread - 1
    ease = rng.beta(mean * strength, (1 - mean) * strength, (6000, actors))
    right = rng.binomial(takes, ease)
    assert np.std(right / takes) == pytest.approx(0.105, abs=0.003)

    # `share_interval` of each experiment, its actors' shares being of equally many takes.
    expected = stats.ttest_1samp(right / takes, 0, axis=1).confidence_interval(0.95)
    limits = np.clip([expected.low, expected.high], 0, 1)
    ours = [share_interval(each, np.full(actors, takes)) for each in right[:50]]
    assert pytest.approx(limits[:, :50]) == np.array(ours).T
    assert 0.92 <= np.mean((limits[0] <= mean) & (mean <= limits[1])) <= 0.97

    casts = rng.multinomial(actors, np.full(actors, 1 / actors), size=1000) / actors
    low, high = np.percentile(right[:3000] / takes @ casts.T, [2.5, 97.5], axis=1)
    resampled = np.mean((low <= mean) & (mean <= high))
    assert resampled < (0.92 if actors < 20 else 0.93)


def test_interval_is_of_actors_not_of_clips() -> None:
    # Half the actors are always right, the others always wrong: the clips' number cannot matter.
    actors = np.repeat(np.arange(10), 50)
    wide = interval(accuracy, count(actors % 2, np.tile(logs_of([[0.9, 0.1]]), (500, 1)), actors))
    few = interval(accuracy, count(np.arange(10) % 2, np.tile(logs_of([[0.9, 0.1]]), (10, 1)), np.arange(10)))
    reach = stats.t.ppf(0.975, 9) * np.sqrt(0.25 / 9)
    for limits in (wide, few):
        assert limits.tolist() == pytest.approx([0.5 - reach, 0.5 + reach])
    same = interval(accuracy, count(np.tile([0, 1], 250), np.tile(logs_of([[0.9, 0.1]]), (500, 1)), actors))
    assert same.tolist() == [0.5, 0.5]


def test_a_figure_stays_within_its_range() -> None:
    right = np.arange(8) > 0  # seven of eight
    counts = count(np.zeros(8, int), np.log(np.where(right[:, None], [0.9, 0.1], [0.1, 0.9])), np.arange(8))
    low, high = interval(accuracy, counts)
    assert 0 < low < 7 / 8 and high == 1


def test_of_few_actors_there_is_no_interval() -> None:
    labels, logs, actors = sample(actors=FEWEST)
    assert np.isfinite(interval(accuracy, count(labels, logs, actors))).all()
    few = actors < FEWEST - 1
    assert np.isnan(interval(accuracy, count(labels[few], logs[few], actors[few]))).all()
    assert np.isnan(interval(recalls, count([0, 1], logs_of([[0.9, 0.1], [0.2, 0.8]])))).all()
    assert TOO_FEW == "fewer than 8 actors: an interval by actor would not hold"


def test_interval_of_a_class_that_is_absent_without_one_actor_is_unknown() -> None:
    labels, actors = np.array([0, 1] * 9), np.repeat(np.arange(9), 2)
    labels[-1] = 2  # of the last actor alone; a fourth class is nobody's
    limits = interval(recalls, count(labels, np.tile(logs_of([[0.7, 0.1, 0.1, 0.1]]), (18, 1)), actors))
    assert np.isnan(limits[:, 2:]).all() and limits[:, :2].tolist() == [[1, 0], [1, 0]]


def test_seeds_are_averaged_within_an_actor() -> None:
    right, wrong = logs_of([[0.9, 0.1]]), logs_of([[0.1, 0.9]])
    one = count([0, 0], np.concatenate([right, wrong]), [0, 1], 2)
    two = count([0, 0], np.concatenate([wrong, right]), [0, 1], 2)
    assert accuracy(average([one, two])).tolist() == [0.5, 0.5]
    # A seed that has not tested an actor does not dilute it.
    assert accuracy(average([one, count([0], wrong, [0], 2)])).tolist() == [0.5, 0.0]


@pytest.mark.parametrize(
    ("logs", "says"),
    [
        ([[-0.1, float("nan")]], "NaN"),
        ([[math.log(0.5), math.log(0.6)]], "sum to 1.1"),
        ([[0.9, 0.1]], "natural-log"),  # probabilities given for log-probabilities
        ([[math.log10(0.5), math.log10(0.5)]], "natural-log"),
        ([[float("inf"), 0.0]], "sum to inf"),
    ],
)
def test_what_is_no_log_probability_is_refused(logs: list[list[float]], says: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        count([0], logs)
    assert "\n" not in str(caught.value)


def test_a_probability_of_nothing_is_one() -> None:
    assert probabilities([[0.0, -math.inf]]).tolist() == [[1.0, 0.0]]
    assert accuracy(count([0], [[0.0, -math.inf]]).pooled()) == 1


def test_no_clips_are_refused() -> None:
    with pytest.raises(InputError, match="no predictions"):
        count([], np.zeros((0, 8)))
