"""Fusion and encoders of a model, from its name ("cfn_sr+openface+speech")."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from cfnsr.errors import InputError

if TYPE_CHECKING:
    from cfnsr.models.entries import Entry

REFERENCE = "cfn_sr"  # what every other row of the same encoders is compared with


class Encoders(NamedTuple):
    """The encoders of video and audio; "" for a modality that the model does not use."""

    video: str
    audio: str


PAPERS = Encoders("pixels", "mfcc")
PLAIN = {"", *PAPERS, "log_mel"}  # those of the paper's own rows
LABELS = {"mfcc": "MFCC", "log_mel": "log-mel", "openface": "OpenFace"}


def entry_of(model: str) -> "Entry | None":
    """Find the zoo's entry of a model, whatever its encoders; None where it has none."""
    from cfnsr.models.entries import ENTRIES
    from cfnsr.models.names import base_name, find

    try:
        return find(model)
    except InputError:  # a user's own, or one with an encoder that was there when it was trained
        return ENTRIES.get(base_name(model))


def encoders_of(model: str) -> Encoders:
    """Read the encoders that a model's name ends with, and the paper's where it says nothing.

    >>> encoders_of("cfn_sr"), encoders_of("audio+speech")
    (Encoders(video='pixels', audio='mfcc'), Encoders(video='', audio='speech'))
    """
    from cfnsr.models.settings import ENCODERS

    entry = entry_of(model)
    named = PAPERS._asdict() if entry is None else {"video": "", "audio": "", **entry.encoders}
    for suffix in model.split("+")[1:]:
        modality = next((modality for modality, known in ENCODERS.items() if suffix in known), "audio")
        named[modality] = suffix
    return Encoders(named["video"], named["audio"])


def fusion_of(model: str) -> str | None:
    """Tell where the modalities of a model meet; None for one that the zoo does not know."""
    entry = entry_of(model)
    return None if entry is None else entry.fusion


def is_plain(model: str) -> bool:
    """True where a model has the paper's encoders, so that it belongs in the paper's tables."""
    return set(encoders_of(model)) <= PLAIN


def pairs_of(models: Iterable[str]) -> dict[str, Encoders]:
    """Choose the pair of encoders whose table each model stands in.

    A model of one modality stands beside the fused ones that use its encoder, of several such pairs beside
    that which has least of the paper's encoders.

    >>> pairs_of(["audio+speech", "cfn_sr+speech", "cfn_sr+openface+speech"])["audio+speech"]
    Encoders(video='openface', audio='speech')
    """
    every = {model: encoders_of(model) for model in models}
    others = [own for model, own in every.items() if not is_plain(model)]
    pairs = {own for own in others if all(own)}
    fused = sorted(pairs, key=lambda own: (sum(name in PAPERS for name in own), own))
    single = [own for own in others if not all(own)]

    def pair_of(model: str, own: Encoders) -> Encoders:
        if is_plain(model):
            return PAPERS
        alone = Encoders(*(next(filter(None, column), "") for column in zip(own, *single, strict=True)))
        return next((pair for pair in fused if uses(pair, own)), alone)

    return {model: pair_of(model, own) for model, own in every.items()}


def uses(pair: Encoders, own: Encoders) -> bool:
    """True where a model's encoders are those of a pair, as far as it has any."""
    return all(name in ("", there) for name, there in zip(own, pair, strict=True))


def reference_of(pair: Encoders) -> str:
    """Name the model that the others of a pair are compared with.

    >>> reference_of(PAPERS), reference_of(Encoders("openface", "speech"))
    ('cfn_sr', 'cfn_sr+openface+speech')
    """
    others = [name for name, papers in zip(pair, PAPERS, strict=True) if name and name != papers]
    return "+".join([REFERENCE, *others])


def describe(encoders: Encoders) -> str:
    """Put encoders into words.

    >>> describe(Encoders("openface", "speech")), describe(Encoders("", "mfcc"))
    ('OpenFace and speech', 'MFCC')
    """
    return " and ".join(LABELS.get(name, name) for name in encoders if name)


def title_of(model: str) -> str:
    """Title a row with other encoders than the paper's by the paper's word for the fusion.

    >>> title_of("averaging+openface+speech"), title_of("audio+speech"), title_of("cfn_sr_features")
    ('Averaging', 'speech alone', 'cfn_sr_features')
    """
    from cfnsr.models.entries import TABLES
    from cfnsr.models.names import base_name

    base = base_name(model)
    if base in Encoders._fields:
        return f"{describe(encoders_of(model))} alone"
    titles = (title for table in TABLES.values() for title, name in table if name == base)
    return next(titles, model)
