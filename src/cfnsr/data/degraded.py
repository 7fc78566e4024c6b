"""Takes once more, with the sound of another microphone, codec or room: they train, and are not tested."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from zlib import crc32

from cfnsr.corpus.take import Take
from cfnsr.data.preparer import loud
from cfnsr.features.base import Sound

VERSION = "degraded"  # attribute of such a take: its number, from 1


def degraded_takes(takes: Sequence[Take], versions: int) -> list[Take]:
    """List some degraded versions of each take."""
    return [
        replace(
            take, name=degraded_name(take.name, number), attributes={**take.attributes, VERSION: str(number)}
        )
        for take in takes
        for number in range(1, versions + 1)
    ]


def degraded_name(name: str, number: int) -> str:
    """Name a degraded version of a take.

    >>> degraded_name("03-01-01-01-01-01-01", 2)
    '03-01-01-01-01-01-01 degraded 2'
    """
    return f"{name} {VERSION} {number}"


def original_name(name: str) -> str:
    """Name the take that a version is of; a take's own name stays.

    >>> original_name(degraded_name("a take", 2)), original_name("a take")
    ('a take', 'a take')
    """
    return name.partition(f" {VERSION} ")[0]


def is_degraded(attributes: Mapping[str, str]) -> bool:
    """Recognise a degraded version by the attributes of its take or clip."""
    return VERSION in attributes


def degrade_sound(sound: Sound, take: Take) -> Sound:
    """Degrade the sound of a take; drawn from its name, which holds the version, alone.

    Sound that would be too quiet to count as speech stays as it is.
    """
    if not is_degraded(take.attributes) or not len(sound.samples):
        return sound
    from cfnsr.media.degrade import degrade  # loads scipy, which a prediction does without

    samples = degrade(sound.samples, sound.rate, crc32(take.name.encode()))
    return (
        Sound(samples, sound.rate, sound.preparation)
        if loud(samples, sound.rate, sound.preparation)
        else sound
    )
