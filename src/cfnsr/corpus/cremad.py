"""CREMA-D: files named actor_sentence_emotion_level, and a table of its actors.

Source: Cao et al. (2014), "CREMA-D: Crowd-sourced Emotional Multimodal Actors Dataset",
IEEE Transactions on Affective Computing 5(4).
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from cfnsr.corpus.scheme import Licence, Performance, Scheme
from cfnsr.corpus.take import Actor
from cfnsr.emotions import CREMAD
from cfnsr.errors import InputError
from cfnsr.files import open_table

DEMOGRAPHICS = "VideoDemographics.csv"
SENTENCES = ("IEO", "TIE", "IOM", "IWW", "TAI", "MTI", "IWL", "ITH", "DFA", "ITS", "TSI", "WSI")
NAMED = ("neutral", "happy", "sad", "angry", "fearful", "disgust")
EMOTIONS = {name[:3].upper(): name for name in NAMED}
# "X" is the published name of one recording, 1040_ITH_SAD_X.
LEVELS = {"XX": "unspecified", "X": "unspecified", "LO": "low", "MD": "medium", "HI": "high"}

NAME = re.compile(
    r"(?<![0-9A-Za-z])(?P<actor>10(?:0[1-9]|[1-8]\d|9[01]))"
    rf"_(?P<sentence>{'|'.join(SENTENCES)})_(?P<emotion>{'|'.join(EMOTIONS)})_(?P<level>{'|'.join(LEVELS)})"
    r"(?![A-Za-z])",
    re.ASCII,
)
TERMS = (
    "CREMA-D is made available under the Open Database License (http://opendatacommons.org/licenses/odbl/)."
)
CITATION = (
    "Cao H, Cooper DG, Keutmann MK, Gur RC, Nenkova A, Verma R (2014). CREMA-D: Crowd-sourced "
    "Emotional Multimodal Actors Dataset. IEEE Transactions on Affective Computing 5(4): 377-390."
)


def read(match: re.Match[str]) -> Performance:
    """Read a name; the actor's sex is not in it, see `read_sexes`.

    >>> take = SCHEME.parse("1001_DFA_ANG_XX")
    >>> take.emotion, take.actor, take.attributes["sentence"], take.attributes["intensity"]
    ('angry', 1001, 'DFA', 'unspecified')
    """
    return Performance(
        name=match[0],
        key=match[0],
        emotion=EMOTIONS[match["emotion"]],
        actor=int(match["actor"]),
        attributes={"sentence": match["sentence"], "intensity": LEVELS[match["level"]]},
    )


def read_sexes(tables: Sequence[Path]) -> Mapping[Actor, str]:
    """Read the sexes of the actors from `VideoDemographics.csv` (columns ActorID and Sex), if it is there.

    Raises:
        InputError: the file lacks one of the two columns or cannot be read as text.
    """
    path = next((path for path in tables if path.name.lower() == DEMOGRAPHICS.lower()), None)
    if path is None:
        return {}
    expected = "expected CREMA-D's table of actors with the columns ActorID and Sex; mend or remove it"
    with open_table(path, expected) as table:
        if not {"ActorID", "Sex"} <= set(table.header):
            raise InputError(f"{path}: {expected}")
        rows = [dict(zip(table.header, cells, strict=True)) for _, cells in table.rows()]
    sexes = {row["ActorID"]: row["Sex"].lower() for row in rows if row["ActorID"].isdecimal()}
    return {int(actor): sex for actor, sex in sexes.items() if sex in ("male", "female")}


SCHEME = Scheme(
    name="cremad",
    title="CREMA-D",
    example="1001_DFA_ANG_XX.flv",
    labels=CREMAD,
    pattern=NAME,
    read=read,
    originals=(".flv", ".wav"),
    sexes=read_sexes,
    licence=Licence("odbl", TERMS, (CITATION,)),
)
