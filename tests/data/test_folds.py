"""Folds of whole actors: who is in which part, and that nobody is in two."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cfnsr.data.folds import (
    PROTOCOLS,
    Fold,
    alone,
    choose_folds,
    find_protocol,
    leave_one_actor_out_folds,
    nested_folds,
    paper_folds,
    random_folds,
    twice,
    with_its_actor,
    with_normalised_speakers,
)
from cfnsr.data.store import Header
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


@pytest.mark.parametrize(
    ("actors", "folds"), [(3, 3), (5, 5), (12, 6), (19, 6), (20, 5), (23, 5), (24, 6), (91, 6)]
)
def test_as_many_nested_folds_as_leave_four_actors_in_each(actors: int, folds: int) -> None:
    assert len(nested_folds(dict.fromkeys(range(actors)))) == folds


def test_nested_folds_of_the_actors_with_action_units() -> None:
    """RAVDESS without actors 21 to 24: both sexes in every part, 12 actors that train."""
    corpus = {actor: RAVDESS[actor] for actor in range(1, 21)}
    folds = nested_folds(corpus)
    assert [fold.test for fold in folds] == [tuple(range(first, first + 4)) for first in (1, 5, 9, 13, 17)]
    for fold in folds:
        assert len(fold.validation) == 4 and len(fold.train) == 12
        assert sum(corpus[actor] == "male" for actor in fold.test) == 2


@given(st.integers(3, 40))
def test_one_actor_is_left_out(actors: int) -> None:
    corpus = dict.fromkeys((f"speaker {number:02}" for number in range(actors)), None)
    folds = leave_one_actor_out_folds(dict(corpus))
    assert [fold.test for fold in folds] == [(actor,) for actor in corpus]
    assert sorted(fold.validation for fold in folds) == [(actor,) for actor in corpus]
    for fold in folds:
        assert sorted([*fold.train, *fold.validation, *fold.test]) == list(corpus)


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
    with pytest.raises(InputError, match="2 actors: leaving one out needs at least 3"):
        leave_one_actor_out_folds({1: None, 2: None})


def test_protocols_say_who_chooses() -> None:
    chosen = {name for name, protocol in PROTOCOLS.items() if protocol.selected_on == "validation"}
    assert PROTOCOLS.keys() - chosen == {"paper", "best_epoch_on_test"}
    honest = [name for name, protocol in PROTOCOLS.items() if not protocol.caveat]
    assert honest == ["nested", "leave_one_actor_out", "leave_one_corpus_out"]
    with pytest.raises(InputError, match="'best' is unknown: expected one of nested, paper"):
        find_protocol("best")


def test_standardised_speakers_are_declared_and_neither_leaky_nor_optimistic() -> None:
    for name in ("nested", "leave_one_actor_out"):
        plain, normalised = find_protocol(name), find_protocol(with_normalised_speakers(name))
        said = "speakers standardised: transductive, needs all emotions of each person in balance"
        assert normalised.caveat == said
        assert normalised == replace(plain, name=normalised.name, normalised=True), "the same folds"
    assert with_normalised_speakers("nested_normalised") == "nested_normalised"
    with pytest.raises(InputError, match=r"'paper' has no speaker norm.*of nested, leave_one_ac"):
        with_normalised_speakers("paper")
    with pytest.raises(InputError, match="'best' is unknown"):
        with_normalised_speakers("best")


def header(name: str, actor: int, emotion: str = "calm") -> Header:
    return Header(name, emotion, actor, "male" if actor % 2 else "female", {}, {}, {})


def test_who_is_dealt_with_whom() -> None:
    clip = header("a", 7)
    assert [(dealt.unit, dealt.stratum) for dealt in with_its_actor(clip)] == [(7, "male")]
    assert [(dealt.unit, dealt.stratum) for dealt in alone(clip)] == [("a", "calm")]
    assert [dealt.name for dealt in twice(clip)] == ["a", "a (again)"]


def test_random_folds_share_actors_and_emotions() -> None:
    """Single clips, each tested once, the emotions shared out, and every actor on both sides."""
    emotions = ("calm", "happy", "sad")
    clips = {f"{actor:02}-{e}-{take}": e for actor in range(24) for e in emotions for take in range(4)}
    folds = random_folds(dict(clips))
    assert folds == random_folds(dict(reversed(clips.items())))
    assert sorted(str(clip) for fold in folds for clip in fold.test) == sorted(clips)
    for fold in folds:
        share = [sum(clips[str(clip)] == emotion for clip in fold.test) for emotion in emotions]
        assert max(share) - min(share) <= 1
        actors = {str(clip)[:2] for clip in fold.test}
        assert len(actors) > 18 and actors <= {str(clip)[:2] for clip in fold.train}


def test_a_take_that_counts_twice_is_often_on_both_sides() -> None:
    clips = [dealt for number in range(60) for dealt in twice(header(f"take {number}", 1))]
    fold = random_folds({clip.unit: clip.stratum for clip in clips})[0]
    train, test = ({str(unit).removesuffix(" (again)") for unit in part} for part in (fold.train, fold.test))
    assert len(train & test) > 8


def test_choosing_folds() -> None:
    folds = paper_folds(RAVDESS)
    assert choose_folds(folds, None) == folds
    assert [fold.number for fold in choose_folds(folds, [5, 2])] == [5, 2]
    with pytest.raises(InputError, match="fold 0, 6 does not exist: expected 1 to 5"):
        choose_folds(folds, [0, 6])
