"""Protocols: the units dealt into folds, the way they are dealt, and the part that chooses the epoch."""

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from cfnsr.data.degraded import original_name
from cfnsr.data.joined import CORPUS
from cfnsr.data.store import Header
from cfnsr.errors import InputError

PAPER_FOLDS = 5
NESTED_FOLDS = 6
TESTED = 4  # actors a nested fold tests, as far as it can be had: 20 to 23 actors make 5 folds
EVALUATED = "on_"  # and a corpus: the protocol of a trained model on a corpus that did not train it
OPTIMISTIC = "optimistic: best epoch on test"
SUFFIX = "_normalised"
NORMALISED = "speakers standardised: transductive, needs all emotions of each person in balance"

Unit = int | str  # dealt whole: an actor, or a single clip where a protocol deals those


@dataclass(frozen=True)
class Fold:
    """Actors that train, choose the epoch and are tested.

    Raises:
        InputError: when an actor has two parts, or nobody trains or is tested.
    """

    number: int  #: from 1
    train: tuple[Unit, ...]  #: whose clips the weights are fitted to
    validation: tuple[Unit, ...]  #: who alone choose the epoch; none in the paper's protocol
    test: tuple[Unit, ...]  #: of the reported figures

    def __post_init__(self) -> None:
        count = Counter([*self.train, *self.validation, *self.test])
        twice = sorted(str(unit) for unit, times in count.items() if times > 1)
        if twice:
            raise InputError(
                f"fold {self.number} leaks: actor {', '.join(twice)} stands in two parts: "
                "expected whole actors in train, validation or test alone"
            )
        if not self.train or not self.test:
            empty = "train" if not self.train else "test"
            raise InputError(f"fold {self.number} has no {empty} actors: expected a corpus with more actors")


def paper_folds(sexes: Mapping[Unit, str | None]) -> list[Fold]:
    """Deal the paper's folds: consecutive actors are tested, the others train (section 3.2).

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


def nested_folds(sexes: Mapping[Unit, str | None]) -> list[Fold]:
    """Deal folds over all actors, both sexes balanced; the next fold's test actors are the inner validation.

    With RAVDESS: 6 folds of 4 (two men, two women), 4 inner validation actors, 16 that train. 20 to 23 actors
    make 5 folds of 4 or 5; fewer, 6 smaller ones.

    >>> fold = nested_folds({actor: "male" if actor % 2 else "female" for actor in range(1, 25)})[0]
    >>> fold.test, fold.validation, len(fold.train)
    ((1, 2, 3, 4), (5, 6, 7, 8), 16)
    """
    fives = (NESTED_FOLDS - 1) * TESTED <= len(sexes) < NESTED_FOLDS * TESTED
    count = min(NESTED_FOLDS - fives, len(sexes))
    # Ordered by sex, then dealt into consecutive runs: every fold gets its part of each sex.
    groups: list[list[Unit]] = [[] for _ in range(count)]
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
    return _in_turn(groups, "the nested protocol")


def leave_one_actor_out_folds(sexes: Mapping[Unit, str | None]) -> list[Fold]:
    """Deal a fold an actor, who is tested; the next actor is the inner validation, and all others train.

    >>> fold = leave_one_actor_out_folds(dict.fromkeys((1, 2, 3, 4)))[3]
    >>> fold.test, fold.validation, fold.train
    ((4,), (1,), (2, 3))
    """
    return _in_turn([[actor] for actor in sorted(sexes)], "leaving one out")


def leave_one_corpus_out_folds(corpora: Mapping[Unit, str | None]) -> list[Fold]:
    """Deal a fold a corpus, which is tested; of the others every sixth actor is the inner validation.

    >>> fold = leave_one_corpus_out_folds({f"a {n}": "a" for n in range(12)} | {"b 1": "b"})[1]
    >>> fold.test, fold.validation
    (('b 1',), ('a 1', 'a 5'))
    """
    names = sorted({str(corpus) for corpus in corpora.values()})
    if len(names) < 2:
        raise InputError("leaving one corpus out needs two or more: give --data several times, a corpus each")
    folds = []
    for number, name in enumerate(names, 1):
        test = tuple(sorted(actor for actor in corpora if corpora[actor] == name))
        others = [
            sorted(actor for actor in corpora if corpora[actor] == other) for other in names if other != name
        ]
        validation = tuple(actor for actors in others for actor in actors[1::NESTED_FOLDS])
        train = tuple(actor for actors in others for actor in actors if actor not in validation)
        folds.append(Fold(number, train, validation, test))
    return folds


def _in_turn(groups: Sequence[Sequence[Unit]], what: str) -> list[Fold]:
    """Test each group in turn; the next one is the inner validation, and all others train."""
    if len(groups) < 3:
        raise InputError(
            f"the corpus has {len(groups)} actors: {what} needs at least 3, one each to train, to validate "
            "and to test"
        )
    every = {actor for group in groups for actor in group}
    folds = []
    for number, test in enumerate(groups, 1):
        validation = groups[number % len(groups)]
        train = every.difference(test, validation)
        folds.append(Fold(number, *(tuple(sorted(part)) for part in (train, validation, test))))
    return folds


def random_folds(strata: Mapping[Unit, str | None]) -> list[Fold]:
    """Deal folds of the sizes of `nested_folds` at random but for the strata; the same at every call.

    >>> fold = random_folds({f"clip {number}": "calm" for number in range(12)})[0]
    >>> len(fold.train), len(fold.validation), len(fold.test)
    (8, 2, 2)
    """
    order = sorted(strata, key=lambda unit: hashlib.sha256(str(unit).encode()).digest())
    folds = []
    for fold in nested_folds({place: strata[unit] for place, unit in enumerate(order)}):
        parts = (fold.train, fold.validation, fold.test)
        folds.append(Fold(fold.number, *(tuple(order[int(place)] for place in part) for part in parts)))
    return folds


@dataclass(frozen=True)
class Dealt:
    """One clip as a protocol deals it."""

    unit: Unit  #: all clips of a unit go to the same part
    stratum: str | None  #: spread over all parts
    name: str  #: of the clip in the predictions


def with_its_actor(clip: Header) -> tuple[Dealt, ...]:
    """Deal an actor's clips together; both sexes, of each corpus, are spread over the parts."""
    stratum = " ".join(filter(None, (clip.attributes.get(CORPUS), clip.sex)))
    return (Dealt(clip.actor, stratum or None, clip.name),)


def with_its_corpus(clip: Header) -> tuple[Dealt, ...]:
    """Deal an actor's clips together, for folds that keep each corpus together."""
    return (Dealt(clip.actor, clip.attributes.get(CORPUS), clip.name),)


def alone(clip: Header) -> tuple[Dealt, ...]:
    """Deal every clip for itself; the emotions are spread over the parts."""
    return (Dealt(original_name(clip.name), clip.emotion, clip.name),)


def twice(clip: Header) -> tuple[Dealt, ...]:
    """Deal every clip twice, as where a corpus holds a take as video and as sound: each for itself."""
    again = f"{clip.name} (again)"
    return (*alone(clip), Dealt(f"{original_name(clip.name)} (again)", clip.emotion, again))


@dataclass(frozen=True)
class Protocol:
    """A way to measure: folds, the part that chooses the epoch, and leaks on purpose.

    Args:
        normalised: each speaker's features are standardised by all of that speaker's takes, without their
            labels: transductive, and no figure for a stranger of whom there are few takes or emotions.
    """

    name: str  #: as the command line, folders and reports have it
    deal: Callable[[Mapping[Unit, str | None]], list[Fold]]  #: units and their strata -> folds
    selected_on: str = "validation"  #: the part whose accuracy chooses the epoch
    units: Callable[[Header], tuple[Dealt, ...]] = with_its_actor  #: a clip -> what it is dealt as
    leaks: str = ""  #: on both sides of a fold on purpose; nothing where actors are dealt whole
    normalised: bool = False
    masked: bool = False  #: a clip is answered among the emotions of its corpus alone

    @property
    def caveat(self) -> str:
        """Caveat beside its figures: why they flatter, or what they need that is seldom had."""
        optimistic = OPTIMISTIC if self.selected_on == "test" else ""
        leaky = self.leaks and f"leaky: {self.leaks}"
        return "; ".join(filter(None, [optimistic, leaky, NORMALISED if self.normalised else ""]))


_EVERY = (
    Protocol("nested", nested_folds),
    Protocol("paper", paper_folds, "test"),
    Protocol("leave_one_actor_out", leave_one_actor_out_folds),
    # How a model does on people of another corpus, of other microphones, rooms and languages.
    Protocol("leave_one_corpus_out", leave_one_corpus_out_folds, units=with_its_corpus, masked=True),
    # The same folds with standardised speakers, which not every use can do: a protocol of its own.
    Protocol("nested_normalised", nested_folds, normalised=True),
    Protocol("leave_one_actor_out_normalised", leave_one_actor_out_folds, normalised=True),
    # Habits of the field, to measure what they add (docs/protocols.md): one step away from "nested" each,
    # but for the last, which is a step further than "shared_actors".
    Protocol("best_epoch_on_test", nested_folds, "test"),
    Protocol("shared_actors", random_folds, units=alone, leaks="actors shared between training and test"),
    Protocol(
        "repeated_takes",
        random_folds,
        units=twice,
        leaks="actors and copies of takes shared between training and test",
    ),
)
PROTOCOLS: dict[str, Protocol] = {protocol.name: protocol for protocol in _EVERY}


def find_protocol(name: str) -> Protocol:
    """Find a protocol by name."""
    if name not in PROTOCOLS:
        raise InputError(f"protocol {name!r} is unknown: expected one of {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]


def with_normalised_speakers(name: str) -> str:
    """Name the protocol of the same folds whose speakers are standardised; raise `InputError` if none is.

    >>> with_normalised_speakers("nested")
    'nested_normalised'
    """
    found = name if find_protocol(name).normalised else f"{name}{SUFFIX}"
    if found not in PROTOCOLS:
        able = ", ".join(other.removesuffix(SUFFIX) for other in PROTOCOLS if PROTOCOLS[other].normalised)
        raise InputError(
            f"protocol {name!r} has no speaker normalisation: expected one of {able}, or no "
            "--speaker-normalisation"
        )
    return found


def choose_folds(folds: Sequence[Fold], numbers: Sequence[int] | None) -> list[Fold]:
    """Choose the folds with these numbers; all when none are named."""
    if not numbers:
        return list(folds)
    by_number = {fold.number: fold for fold in folds}
    unknown = [str(number) for number in numbers if number not in by_number]
    if unknown:
        raise InputError(f"fold {', '.join(unknown)} does not exist: expected 1 to {len(folds)}")
    return [by_number[number] for number in numbers]
