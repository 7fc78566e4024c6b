"""RAVDESS: files named modality-channel-emotion-intensity-statement-repetition-actor.

Source: Livingstone & Russo (2018), PLoS ONE 13(5): e0196391, "File naming convention".
"""

import re

from cfnsr.corpus.scheme import Licence, Performance, Scheme
from cfnsr.emotions import RAVDESS

ACTORS = range(1, 25)
STATEMENTS = ("Kids are talking by the door", "Dogs are sitting by the door")

# Neutral (01) has no strong intensity (02).
NAME = re.compile(
    r"(?<!\d)(?P<modality>0[1-3])-(?P<key>(?P<channel>0[12])-(?!01-02)(?P<emotion>0[1-8])"
    r"-(?P<intensity>0[12])-(?P<statement>0[12])-(?P<repetition>0[12])-(?P<actor>0[1-9]|1\d|2[0-4]))(?!\d)",
    re.ASCII,
)
CITATIONS = {  # by Zenodo record
    1188976: """\
Livingstone SR, Russo FA (2018). The Ryerson Audio-Visual Database of Emotional Speech and Song (RAVDESS).
  PLoS ONE 13(5): e0196391. https://doi.org/10.1371/journal.pone.0196391
  Data: https://doi.org/10.5281/zenodo.1188976""",
    3255102: """\
Swanson R, Livingstone SR, Russo FA (2019). RAVDESS Facial Landmark Tracking.
  https://doi.org/10.5281/zenodo.3255102""",
}
TERMS = """\
RAVDESS is licensed CC BY-NC-SA 4.0: not for commercial use, share alike, name the authors
(https://creativecommons.org/licenses/by-nc-sa/4.0/)."""


def read(match: re.Match[str]) -> Performance:
    """Read a name: odd actors are male, even ones female.

    >>> take = SCHEME.parse("02-01-06-01-02-01-12")
    >>> take.emotion, take.actor, take.sex, take.attributes["intensity"], take.pictures, take.sound
    ('fearful', 12, 'female', 'normal', True, False)
    >>> SCHEME.parse("02-01-06-01-02-01-25") is None
    True
    """
    actor = int(match["actor"])
    return Performance(
        name=match[0],
        key=match["key"],
        # The file names count the emotions in the order of the label set.
        emotion=RAVDESS.emotions[int(match["emotion"]) - 1],
        actor=actor,
        sex="male" if actor % 2 else "female",
        attributes={
            "channel": "song" if match["channel"] == "02" else "speech",
            "intensity": "strong" if match["intensity"] == "02" else "normal",
            "statement": STATEMENTS[int(match["statement"]) - 1],
            "repetition": str(int(match["repetition"])),
        },
        pictures=match["modality"] != "03",
        sound=match["modality"] != "02",
    )


SCHEME = Scheme(
    name="ravdess",
    title="RAVDESS",
    example="01-01-06-01-02-01-12.mp4",
    labels=RAVDESS,
    pattern=NAME,
    read=read,
    originals=(".mp4", ".wav", ".flac"),
    licence=Licence("cc-by-nc-sa-4.0", " ".join(TERMS.split()), tuple(CITATIONS.values())),
)
