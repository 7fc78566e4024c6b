"""Fusion and pair of encoders of a model, from its name ("cfn_sr+openface+speech")."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from cfnsr.errors import InputError

if TYPE_CHECKING:
    from cfnsr.models.zoo import Entry

REFERENCE = "cfn_sr"  # what every other row of the same encoders is compared with


class Encoders(NamedTuple):
    """The encoders of video and audio; "" for a modality that the model does not use."""

    video: str
    audio: str


PAPERS = Encoders("pixels", "mfcc")
PLAIN = {"", *PAPERS, "log_mel"}  # those of the paper's own rows
CALLED = {"mfcc": "MFCC", "log_mel": "log-mel", "openface": "OpenFace"}


def entry_of(model: str) -> "Entry | None":
    """The zoo's entry of a model, whatever its encoders; None where it has none."""
    from cfnsr.models.zoo import ENTRIES, base_name, find

    try:
        return find(model)
    except InputError:  # a user's own, or one with an encoder that was there when it was trained
        return ENTRIES.get(base_name(model))


def encoders_of(model: str) -> Encoders:
    """The encoders of a model: those its name ends with, and the paper's where it says nothing.

    >>> encoders_of("cfn_sr"), encoders_of("audio+speech")
    (Encoders(video='pixels', audio='mfcc'), Encoders(video='', audio='speech'))
    >>> encoders_of("my_own+speech")
    Encoders(video='pixels', audio='speech')
    """
    from cfnsr.models.zoo import CHOICES

    found = entry_of(model)
    named = {**found.encoders} if found is not None else PAPERS._asdict()
    for suffix in model.split("+")[1:]:
        modality = next((modality for modality, known in CHOICES.items() if suffix in known), "audio")
        named[modality] = suffix
    return Encoders(named.get("video", ""), named.get("audio", ""))


def fusion_of(model: str) -> str | None:
    """Where the modalities of a model meet; None for one that the zoo does not know."""
    found = entry_of(model)
    return found.fusion if found is not None else None


def is_plain(model: str) -> bool:
    """True where a model has the paper's encoders, so that it belongs in the paper's tables."""
    return set(encoders_of(model)) <= PLAIN


def pairs_of(models: Iterable[str]) -> dict[str, Encoders]:
    """The pair of encoders whose table each model stands in.

    A model of one modality stands beside the fused ones that use its encoder; where there are several
    such pairs, beside that which has least of the paper's encoders.

    >>> pairs_of(["audio+speech", "cfn_sr+speech", "cfn_sr+openface+speech"])["audio+speech"]
    Encoders(video='openface', audio='speech')
    """
    every = {model: encoders_of(model) for model in dict.fromkeys(models)}
    whole = {found for model, found in every.items() if all(found) and not is_plain(model)}
    order = sorted(whole, key=lambda pair: (sum(name in PAPERS for name in pair), pair))
    alone = [found for model, found in every.items() if not all(found) and not is_plain(model)]

    def home(model: str, own: Encoders) -> Encoders:
        if is_plain(model):
            return PAPERS
        if all(own):
            return own
        for pair in order:
            if uses(pair, own):
                return pair
        return Encoders(*(next(filter(None, column), "") for column in zip(own, *alone, strict=True)))

    return {model: home(model, own) for model, own in every.items()}


def uses(pair: Encoders, own: Encoders) -> bool:
    """True where a model's encoders are those of a pair, as far as it has any."""
    return all(not name or name == there for name, there in zip(own, pair, strict=True))


def reference_of(pair: Encoders) -> str:
    """The model that the others of a pair are compared with.

    >>> reference_of(PAPERS), reference_of(Encoders("openface", "speech"))
    ('cfn_sr', 'cfn_sr+openface+speech')
    """
    others = [name for name, papers in zip(pair, PAPERS, strict=True) if name and name != papers]
    return "+".join([REFERENCE, *others])


def called(encoders: Encoders) -> str:
    """Encoders in words.

    >>> called(Encoders("openface", "speech")), called(Encoders("", "mfcc"))
    ('OpenFace and speech', 'MFCC')
    """
    return " and ".join(CALLED.get(name, name) for name in encoders if name)


def title_of(model: str) -> str:
    """The title of a row with other encoders than the paper's: the paper's word for the fusion.

    >>> title_of("averaging+openface+speech"), title_of("audio+speech"), title_of("cfn_sr_features")
    ('Averaging', 'speech alone', 'cfn_sr_features')
    """
    from cfnsr.models.zoo import TABLES, base_name

    titles = {name: title for table in reversed(TABLES.values()) for title, name in table}
    own = encoders_of(model)
    if base_name(model) in ("video", "audio"):
        return f"{called(own)} alone"
    return titles.get(base_name(model), model)
