"""CREMA-D file names, actor_sentence_emotion_level, and its table of actors.

Source: Cao et al. (2014), "CREMA-D: Crowd-sourced Emotional Multimodal Actors Dataset",
IEEE Transactions on Affective Computing 5(4).
"""

import re
from pathlib import Path

from cfnsr.corpus.take import Performance, Scheme
from cfnsr.emotions import CREMAD
from cfnsr.errors import InputError
from cfnsr.files import open_table

ACTORS = range(1001, 1092)
DEMOGRAPHICS = "VideoDemographics.csv"
SENTENCES = ("IEO", "TIE", "IOM", "IWW", "TAI", "MTI", "IWL", "ITH", "DFA", "ITS", "TSI", "WSI")
EMOTIONS = {
    "NEU": "neutral",
    "HAP": "happy",
    "SAD": "sad",
    "ANG": "angry",
    "FEA": "fearful",
    "DIS": "disgust",
}
# "X" is the published name of one recording, 1040_ITH_SAD_X.
LEVELS = {"XX": "unspecified", "X": "unspecified", "LO": "low", "MD": "medium", "HI": "high"}

_NAME = re.compile(
    rf"(1\d\d\d)_({'|'.join(SENTENCES)})_({'|'.join(EMOTIONS)})_({'|'.join(LEVELS)})", re.ASCII
)


def parse(stem: str) -> Performance | None:
    """Parse the stem of a CREMA-D file; None where it is no CREMA-D name.

    The name does not hold the actor's sex; see `read_sexes`.

    >>> take = parse("1001_DFA_ANG_XX")
    >>> take.emotion, take.actor, take.attributes["sentence"], take.attributes["intensity"]
    ('angry', 1001, 'DFA', 'unspecified')
    """
    match = _NAME.fullmatch(stem)
    if not match or int(match[1]) not in ACTORS:
        return None
    return Performance(
        key=stem,
        emotion=EMOTIONS[match[3]],
        actor=int(match[1]),
        sex=None,
        attributes={"sentence": match[2], "intensity": LEVELS[match[4]]},
    )


def read_sexes(path: Path) -> dict[int, str]:
    """Actor -> "male" or "female" from `VideoDemographics.csv` (columns ActorID and Sex).

    Raises:
        InputError: the file lacks one of the two columns or cannot be read as text.
    """
    expected = "expected CREMA-D's table of actors with the columns ActorID and Sex; mend or remove it"
    with open_table(path, expected) as table:
        if not {"ActorID", "Sex"} <= set(table.header):
            raise InputError(f"{path}: {expected}")
        rows = [dict(zip(table.header, cells, strict=True)) for _, cells in table.rows()]
    sexes = {row["ActorID"]: row["Sex"].lower() for row in rows if row["ActorID"].isdecimal()}
    return {int(actor): sex for actor, sex in sexes.items() if sex in ("male", "female")}


SCHEME = Scheme("cremad", CREMAD, parse, originals=(".flv", ".wav"))
