"""The figures against numbers worked out by hand, scikit-learn, and the obvious slow loops."""

import math

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, f1_score, recall_score

from cfnsr.errors import InputError
from cfnsr.evaluation.metrics import (
    FIGURES,
    Floats,
    Ints,
    accuracy,
    average,
    count,
    ece,
    interval,
    macro_f1,
    probabilities,
    recalls,
    uar,
)


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


def test_calibration_error_by_hand_over_two_bins() -> None:
    # Confidences 0.9 and 0.9 in one bin, one right of two; 0.55 in another, right.
    logs = logs_of([[0.9, 0.1], [0.9, 0.1], [0.45, 0.55]])
    expected = 2 / 3 * abs(0.5 - 0.9) + 1 / 3 * abs(1 - 0.55)
    assert ece(count([0, 1, 1], logs).pooled()) == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(3))
def test_figures_agree_with_scikit_learn_and_the_slow_loop(seed: int) -> None:
    labels, logs, _ = sample(seed=seed)
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
def test_interval_is_that_of_the_slow_loop(name: str) -> None:
    labels, logs, actors = sample(clips=120, actors=6)
    casts = np.random.default_rng(0).multinomial(6, [1 / 6] * 6, size=200)
    drawn = []
    for cast in casts:
        clips = np.concatenate([np.flatnonzero(actors == actor) for actor in np.repeat(np.arange(6), cast)])
        answers = logs[clips].argmax(axis=1)
        drawn.append(
            {
                "accuracy": lambda y, p, _: np.mean(y == p),
                "uar": lambda y, p, _: recall_score(y, p, labels=np.unique(y), average="macro"),
                "macro_f1": lambda y, p, _: f1_score(y, p, labels=np.unique(y), average="macro"),
                "ece": lambda y, _, logs: slow_ece(y, logs),
            }[name](labels[clips], answers, logs[clips])
        )
    ours = interval(FIGURES[name], count(labels, logs, actors), resamples=200)
    assert ours.tolist() == pytest.approx(np.percentile(drawn, [2.5, 97.5]).tolist(), abs=1e-9)


def test_interval_is_of_actors_not_of_clips() -> None:
    # Half the actors are always right, the others always wrong: the clips' number cannot matter.
    actors = np.repeat(np.arange(10), 50)
    wide = interval(accuracy, count(actors % 2, np.tile(logs_of([[0.9, 0.1]]), (500, 1)), actors))
    few = interval(accuracy, count(np.arange(10) % 2, np.tile(logs_of([[0.9, 0.1]]), (10, 1)), np.arange(10)))
    assert wide.tolist() == few.tolist() == pytest.approx([0.2, 0.8])
    same = interval(accuracy, count(np.tile([0, 1], 250), np.tile(logs_of([[0.9, 0.1]]), (500, 1)), actors))
    assert same.tolist() == [0.5, 0.5]


def test_interval_is_the_same_every_time_and_can_be_moved() -> None:
    counts = count(*sample())
    assert interval(accuracy, counts).tolist() == interval(accuracy, counts).tolist()
    plain, moved = interval(ece, counts), interval(ece, counts, about=0.5)
    assert moved[1] - moved[0] == pytest.approx(plain[1] - plain[0])
    assert moved[0] < 0.5 < moved[1]


def test_interval_of_one_actor_is_unknown() -> None:
    assert np.isnan(interval(accuracy, count([0, 1], logs_of([[0.9, 0.1], [0.2, 0.8]])))).all()


def test_interval_of_an_absent_class_is_unknown() -> None:
    limits = interval(recalls, count([0, 1, 0, 1], np.tile(logs_of([[0.8, 0.1, 0.1]]), (4, 1)), [0, 0, 1, 1]))
    assert np.isnan(limits[:, 2]).all() and limits[:, :2].tolist() == [[1, 0], [1, 0]]


def test_seeds_are_averaged_within_an_actor_before_resampling() -> None:
    right, wrong = logs_of([[0.9, 0.1]]), logs_of([[0.1, 0.9]])
    one = count([0, 0], np.concatenate([right, wrong]), [0, 1], 2)
    two = count([0, 0], np.concatenate([wrong, right]), [0, 1], 2)
    both = average([one, two])
    assert accuracy(both).tolist() == [0.5, 0.5]
    assert interval(accuracy, both).tolist() == [0.5, 0.5]
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
