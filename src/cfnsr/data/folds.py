"""Folds of whole actors, and the two protocols that use them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from cfnsr.corpus.take import Actor
from cfnsr.errors import InputError

PAPER_FOLDS = 5
NESTED_FOLDS = 6


@dataclass(frozen=True)
class Fold:
    """Who trains, who chooses the epoch and who is tested; an actor has one part only.

    Args:
        number: 1-based.
        train: actors whose clips the weights are fitted to.
        validation: actors who alone choose the epoch; none in the paper's protocol.
        test: actors the figures are told of.

    Raises:
        InputError: when an actor has two parts, or nobody trains or is tested.
    """

    number: int
    train: tuple[Actor, ...]
    validation: tuple[Actor, ...]
    test: tuple[Actor, ...]

    def __post_init__(self) -> None:
        parts = [*self.train, *self.validation, *self.test]
        twice = sorted({str(actor) for actor in parts if parts.count(actor) > 1})
        if twice:
            raise InputError(
                f"fold {self.number} leaks: actor {', '.join(twice)} stands in two parts: "
                "expected whole actors in train, validation or test alone"
            )
        if not self.train or not self.test:
            empty = "train" if not self.train else "test"
            raise InputError(f"fold {self.number} has no {empty} actors: expected a corpus with more actors")


def paper_folds(sexes: Mapping[Actor, str | None]) -> list[Fold]:
    """The paper's folds: consecutive actors are tested, the others train (section 3.2).

    24 actors // 5 folds are 4, so the last four always train and are never tested.

    >>> [fold.test for fold in paper_folds(dict.fromkeys(range(1, 25)))][0::4]
    [(1, 2, 3, 4), (17, 18, 19, 20)]
    """
    actors = sorted(sexes)
    size = len(actors) // PAPER_FOLDS
    if not size:
        raise InputError(
            f"the corpus has {len(actors)} actors: the paper's protocol needs at least {PAPER_FOLDS}"
        )
    folds = []
    for number in range(1, PAPER_FOLDS + 1):
        test = tuple(actors[(number - 1) * size : number * size])
        train = tuple(actor for actor in actors if actor not in test)
        folds.append(Fold(number, train, (), test))
    return folds


def nested_folds(sexes: Mapping[Actor, str | None]) -> list[Fold]:
    """Folds over all actors, both sexes balanced; the next fold's test actors are the inner validation.

    With RAVDESS: 6 folds of 4 (two men, two women), 4 inner validation actors, 16 that train.

    >>> sexes = {actor: "male" if actor % 2 else "female" for actor in range(1, 25)}
    >>> fold = nested_folds(sexes)[0]
    >>> fold.test, fold.validation, len(fold.train)
    ((1, 2, 3, 4), (5, 6, 7, 8), 16)
    """
    count = min(NESTED_FOLDS, len(sexes))
    if count < 3:
        raise InputError(
            f"the corpus has {len(sexes)} actors: the nested protocol needs at least 3, "
            "one each to train, to validate and to test"
        )
    # Ordered by sex, then dealt into consecutive runs: every fold gets its share of each sex.
    groups: list[list[Actor]] = [[] for _ in range(count)]
    dealt = 0
    for sex in sorted(set(sexes.values()), key=str, reverse=True):
        members = sorted(actor for actor in sexes if sexes[actor] == sex)
        base, extra = divmod(len(members), count)
        # Who gets one more goes round, so that no fold collects the extras of every sex.
        sizes = [base + ((index - dealt) % count < extra) for index in range(count)]
        start = 0
        for group, size in zip(groups, sizes, strict=True):
            group.extend(members[start : start + size])
            start += size
        dealt += extra
    folds = []
    for index, test in enumerate(groups):
        validation = groups[(index + 1) % count]
        train = tuple(sorted(actor for actor in sexes if actor not in test and actor not in validation))
        folds.append(Fold(index + 1, train, tuple(sorted(validation)), tuple(sorted(test))))
    return folds


@dataclass(frozen=True)
class Protocol:
    """How a figure comes about: the folds, and the part that chooses the epoch.

    Args:
        folds: actors and their sexes -> folds.
        selected_on: the part whose accuracy chooses the epoch.
    """

    folds: Callable[[Mapping[Actor, str | None]], list[Fold]]
    selected_on: str


PROTOCOLS: dict[str, Protocol] = {
    "paper": Protocol(paper_folds, "test"),
    "nested": Protocol(nested_folds, "validation"),
}


def find_protocol(name: str) -> Protocol:
    """A protocol by name."""
    if name not in PROTOCOLS:
        raise InputError(f"protocol {name!r} is unknown: expected one of {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]


def choose_folds(folds: Sequence[Fold], numbers: Sequence[int] | None) -> list[Fold]:
    """The folds with these numbers; all when none are named."""
    if not numbers:
        return list(folds)
    by_number = {fold.number: fold for fold in folds}
    unknown = [str(number) for number in numbers if number not in by_number]
    if unknown:
        raise InputError(f"fold {', '.join(unknown)} does not exist: expected 1 to {len(folds)}")
    return [by_number[number] for number in numbers]
