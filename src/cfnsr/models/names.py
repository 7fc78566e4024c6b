"""Names of models: an entry, and behind it the encoders that are not the paper's (`cfn_sr+speech`)."""

from collections.abc import Sequence
from dataclasses import replace

from cfnsr.console import say
from cfnsr.errors import InputError
from cfnsr.models.entries import ENTRIES, TABLES, Entry, full_name
from cfnsr.models.settings import ENCODERS, PAPER


def base_name(name: str) -> str:
    """Return a model's name without its encoders; it need not be one of the zoo.

    >>> base_name("cfn_sr+openface+speech")
    'cfn_sr'
    """
    return name.partition("+")[0]


def encoders_of(name: str) -> dict[str, str]:
    """Encoder of each modality of a model.

    >>> encoders_of("audio"), encoders_of("cfn_sr+openface")
    ({'audio': 'mfcc'}, {'video': 'openface', 'audio': 'mfcc'})
    """
    return find(name).encoders


def find(name: str) -> Entry:
    """Find the entry of a model, with the encoders that its name chooses.

    Raises:
        InputError: for an unknown name, which lists the known ones; for an encoder that is unknown or not
            to be had with this model; and for a name that is not written as `with_encoders` would.
    """
    base, *chosen = name.split("+")
    if base not in ENTRIES:
        raise InputError(
            f"model {base!r} is unknown: expected one of {', '.join(ENTRIES)}; "
            "one of your own needs `cfnsr --plugin FILE.py`"
        )
    found = ENTRIES[base]
    for encoder in chosen:
        modality = next((modality for modality, known in ENCODERS.items() if encoder in known), None)
        if modality is None:
            raise InputError(f"encoder {encoder!r} of model {name} is unknown: expected {_known()}")
        found = _replace_encoder(found, base, modality, encoder)
    written = base if found.fixed else full_name(base, found.encoders.values())
    if name != written:
        raise InputError(f"model {name!r}: expected {written}, video's encoder first and none of the paper's")
    return replace(found, name=name)


def with_encoders(name: str, *, video: str | None = None, audio: str | None = None) -> str:
    """Name a model with other encoders, as far as it has the modalities.

    Args:
        name: of a model; encoders that it chooses already stay.
        video, audio: names of encoders; None leaves the model's.

    Raises:
        InputError: for an unknown encoder, or a model that has another one for good.

    >>> [with_encoders(name, video="openface", audio="speech") for name in ("audio", "cfn_sr")]
    ['audio+speech', 'cfn_sr+openface+speech']
    """
    found = find(name)
    for modality, encoder in (("video", video), ("audio", audio)):
        if encoder is None:
            continue
        if encoder not in ENCODERS[modality]:
            raise InputError(f"{modality} encoder {encoder!r} is unknown: expected {_known(modality)}")
        if modality in found.encoders:
            found = _replace_encoder(found, name, modality, encoder)
    return name if found.fixed else full_name(base_name(name), found.encoders.values())


def _replace_encoder(found: Entry, name: str, modality: str, encoder: str) -> Entry:
    """Replace the paper's encoder in an entry by another one."""
    if modality not in found.encoders:
        raise InputError(f"model {name} has no {modality}: leave out its encoder {encoder}")
    has = found.encoders[modality]
    if has != encoder and (found.fixed or has != PAPER[modality]):
        raise InputError(f"model {name} has the {modality} encoder {has}: it cannot have {encoder}")
    return replace(found, encoders={**found.encoders, modality: encoder})


def _known(*modalities: str) -> str:
    """List the encoders to choose from, in words."""
    return ", or ".join(f"{' or '.join(ENCODERS[each])} ({each})" for each in modalities or ENCODERS)


def choose_models(
    models: Sequence[str], tables: Sequence[int], *, video: str | None = None, audio: str | None = None
) -> list[str]:
    """List the named models and those of the paper's tables, each once in the order of the tables.

    Args:
        tables: of the paper, 1 or 2.
        video, audio: encoders that all of them get, as far as they have the modality; a row of a table with
            a fixed other one is left out.
    """
    for number in tables:
        if number not in TABLES:
            raise InputError(f"table {number}: expected one of the paper's tables, 1 or 2")
    wanted = {name for number in tables for _, name in TABLES[number]}
    of_tables = [name for name in ENTRIES if name in wanted]
    if not models and not of_tables:
        raise InputError("no model is named: expected some of `cfnsr models`, or --table 1 or 2")
    asked = {name: encoder for name, encoder in (("video", video), ("audio", audio)) if encoder is not None}
    chosen = [with_encoders(name, **asked) for name in models]
    for name in of_tables:
        own = encoders_of(name)
        if find(name).fixed and any(own.get(modality, want) != want for modality, want in asked.items()):
            say(f"{name} is left out: it has its own encoder {', '.join(own.values())}")
        else:
            chosen.append(with_encoders(name, **asked))
    for modality, encoder in asked.items():
        if not any(modality in encoders_of(name) for name in chosen):
            raise InputError(f"--{modality} {encoder}: {', '.join(chosen)} has no {modality}; leave it out")
    return list(dict.fromkeys(chosen))
