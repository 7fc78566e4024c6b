"""RAVDESS file names: modality-channel-emotion-intensity-statement-repetition-actor.

Source: Livingstone & Russo (2018), PLoS ONE 13(5): e0196391, "File naming convention".
"""

import re

from cfnsr.corpus.take import Performance, Scheme
from cfnsr.emotions import RAVDESS

ACTORS = range(1, 25)
STATEMENTS = ("Kids are talking by the door", "Dogs are sitting by the door")

_NAME = re.compile(r"(0[1-3])-((0[12])-(0[1-8])-(0[12])-(0[12])-(0[12])-([0-2]\d))", re.ASCII)


def parse(stem: str) -> Performance | None:
    """Parse the stem of a RAVDESS file; None where it is no RAVDESS name.

    Odd actors are male, even ones female. Neutral has no strong intensity.

    >>> take = parse("02-01-06-01-02-01-12")
    >>> take.emotion, take.actor, take.sex, take.attributes["intensity"], take.pictures, take.sound
    ('fearful', 12, 'female', 'normal', True, False)
    >>> parse("02-01-06-01-02-01-25") is None
    True
    """
    match = _NAME.fullmatch(stem)
    if not match:
        return None
    modality, key, channel, emotion, intensity, statement, repetition, number = match.groups()
    actor = int(number)
    if actor not in ACTORS or (emotion, intensity) == ("01", "02"):
        return None
    return Performance(
        key=key,
        # The file names count the emotions in the order of the label set.
        emotion=RAVDESS.emotions[int(emotion) - 1],
        actor=actor,
        sex="male" if actor % 2 else "female",
        attributes={
            "channel": "song" if channel == "02" else "speech",
            "intensity": "strong" if intensity == "02" else "normal",
            "statement": STATEMENTS[int(statement) - 1],
            "repetition": str(int(repetition)),
        },
        pictures=modality != "03",
        sound=modality != "02",
    )


SCHEME = Scheme("ravdess", RAVDESS, parse, originals=(".mp4", ".wav", ".flac"))
