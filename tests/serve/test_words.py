"""A prediction in words."""

from collections.abc import Sequence

import pytest

from cfnsr.inference.timeline import Prediction, Window, most_probable, summary
from cfnsr.serve.words import in_words

SURE = {
    "calm": {"calm": 0.7, "happy": 0.2, "sad": 0.1},
    "happy": {"calm": 0.1, "happy": 0.8, "sad": 0.1},
    "sad": {"calm": 0.3, "happy": 0.1, "sad": 0.6},
}


def words_of(*kinds: str, length: float = 10.0) -> str:
    """Words for windows side by side: an emotion, with `-` and what is missing, or what is missing alone."""
    windows = []
    for place, kind in enumerate(kinds):
        emotion, _, lacks = kind.partition("-")
        face, speech = "f" not in lacks, "s" not in lacks
        uses = tuple(name for name, there in (("video", face), ("audio", speech)) if there)
        windows.append(Window(place * length, (place + 1) * length, SURE.get(emotion), face, speech, uses))
    probabilities = summary(windows)
    return in_words(Prediction("a.mp4", most_probable(probabilities), probabilities, tuple(windows)))


@pytest.mark.parametrize(
    ("kinds", "words"),
    [
        (["calm"], "Calm 70 %, then happy 20 %."),
        (["calm"] * 4, "Calm all the time."),
        (["calm", "calm", "happy"], "Most of the time calm (67 %), then happy (33 %)."),
        (
            ["calm", "happy", "happy", "sad", "sad", "calm", "calm"],
            "Most often calm (43 %), then sad (29 %), then happy (29 %).",
        ),
        (["calm", "-f"], "Most often calm (50 %). No face from 0:10 to 0:20: no answer."),
        (
            ["calm", "calm-f", "calm-f", "calm", "calm-s", "calm"],
            "Calm all the time. No face from 0:10 to 0:30: voice alone. No speech from 0:40 to 0:50: "
            "picture alone.",
        ),
        (["-fs", "-fs"], "No answer. No face, no speech from 0:00 to 0:20: no answer."),
        (
            ["-f", "calm", "-f", "calm", "-f", "calm", "-f", "calm", "-f"],
            "Most often calm (44 %). No face from 0:00 to 0:10, from 0:20 to 0:30, from 0:40 to 0:50 and "
            "2 times more: no answer.",
        ),
        ([], "Nothing to tell of."),
    ],
)
def test_words(kinds: Sequence[str], words: str) -> None:
    assert words_of(*kinds) == words


def test_long_recordings_have_hours() -> None:
    assert "from 1:00:00 to 2:00:00" in words_of("calm", "-f", length=3600)
