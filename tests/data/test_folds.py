"""Folds of whole actors: who is in which part, and that nobody is in two."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cfnsr.data.folds import PROTOCOLS, Fold, choose_folds, find_protocol, nested_folds, paper_folds
from cfnsr.errors import InputError

RAVDESS = {actor: "male" if actor % 2 else "female" for actor in range(1, 25)}


def test_paper_folds_are_consecutive_actors() -> None:
    folds = paper_folds(RAVDESS)
    assert [fold.test for fold in folds] == [tuple(range(first, first + 4)) for first in (1, 5, 9, 13, 17)]
    for fold in folds:
        assert set(fold.train) == set(range(1, 25)) - set(fold.test) and not fold.validation
        assert {21, 22, 23, 24} <= set(fold.train), "never tested, as in the released code"


def test_nested_folds_of_ravdess() -> None:
    folds = nested_folds(RAVDESS)
    assert len(folds) == 6
    assert sorted(actor for fold in folds for actor in fold.test) == list(range(1, 25))
    for fold in folds:
        for part, size in ((fold.test, 4), (fold.validation, 4), (fold.train, 16)):
            assert len(part) == size
            assert sum(RAVDESS[actor] == "male" for actor in part) == size / 2


@given(st.lists(st.sampled_from(["male", "female", None]), min_size=3, max_size=60))
def test_nested_folds_test_everybody_once_and_share_out_the_sexes(sexes: list[str | None]) -> None:
    corpus = {f"speaker {index:02}": sex for index, sex in enumerate(sexes)}
    folds = nested_folds(corpus)
    tested = [actor for fold in folds for actor in fold.test]
    assert sorted(tested) == sorted(corpus)
    sizes = [len(fold.test) for fold in folds]
    assert max(sizes) - min(sizes) <= 1
    for sex in set(sexes):
        share = [sum(corpus[actor] == sex for actor in fold.test) for fold in folds]
        assert max(share) - min(share) <= 1
    for fold in folds:
        assert fold.train and fold.validation
        assert len({*fold.train, *fold.validation, *fold.test}) == len(corpus)


@pytest.mark.parametrize(
    "parts", [((1, 2), (3,), (2, 4)), ((1, 2), (2,), (4,)), ((1,), (3,), (3,)), ((1, 1), (), (2,))]
)
def test_a_leak_cannot_be_built(parts: tuple[tuple[int, ...], ...]) -> None:
    with pytest.raises(InputError, match="fold 7 leaks: actor"):
        Fold(7, *parts)


def test_empty_parts_and_small_corpora() -> None:
    with pytest.raises(InputError, match="no test actors"):
        Fold(1, (1,), (2,), ())
    with pytest.raises(InputError, match="2 actors: the nested protocol needs at least 3"):
        nested_folds({1: None, 2: None})
    with pytest.raises(InputError, match="4 actors: the paper's protocol needs at least 5"):
        paper_folds(dict.fromkeys(range(4)))


def test_protocols_say_who_chooses() -> None:
    assert {name: protocol.selected_on for name, protocol in PROTOCOLS.items()} == {
        "paper": "test",
        "nested": "validation",
    }
    with pytest.raises(InputError, match="'best' is unknown: expected one of paper, nested"):
        find_protocol("best")


def test_choosing_folds() -> None:
    folds = paper_folds(RAVDESS)
    assert choose_folds(folds, None) == folds
    assert [fold.number for fold in choose_folds(folds, [5, 2])] == [5, 2]
    with pytest.raises(InputError, match="fold 0, 6 does not exist: expected 1 to 5"):
        choose_folds(folds, [0, 6])
