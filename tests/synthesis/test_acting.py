"""The tables of expressions and voices, and their ambiguity."""

import numpy as np
import pytest

from cfnsr.emotions import RAVDESS
from cfnsr.synthesis.acting import (
    ACTION_UNITS,
    CONFUSIONS,
    EXPRESSIONS,
    MANNERS,
    MASKED,
    UPPER_FACE,
    VOICES,
    mask,
    partner,
    show,
    speak,
)


def test_every_emotion_has_a_face_and_a_voice() -> None:
    assert tuple(EXPRESSIONS) == tuple(VOICES) == RAVDESS.emotions
    assert all(unit in ACTION_UNITS for face in EXPRESSIONS.values() for unit in face)


def test_what_one_sense_confuses_the_other_tells() -> None:
    seen, heard = ({frozenset(c.pair) for c in CONFUSIONS if c.sense == sense} for sense in ("seen", "heard"))
    assert len(seen) == len(heard) == 3
    assert not seen & heard
    for pairs in (seen, heard):
        members = [emotion for pair in pairs for emotion in pair]
        assert len(members) == len(set(members)), "an emotion has one partner a sense at most"
    groups = [
        tuple(frozenset((emotion, partner(emotion, sense) or emotion)) for sense in ("seen", "heard"))
        for emotion in RAVDESS.emotions
    ]
    assert len(set(groups)) == len(RAVDESS), "both senses together must tell all emotions apart"


@pytest.mark.parametrize("emotion", RAVDESS.emotions)
def test_a_face_shows_its_emotion_or_its_partners(emotion: str) -> None:
    rng = np.random.default_rng(0)
    allowed = set(EXPRESSIONS[emotion]) | set(EXPRESSIONS.get(partner(emotion, "seen") or "", {}))
    apex = np.stack([show(emotion, 1.0, rng) for _ in range(50)])
    moved = {unit for unit, column in zip(ACTION_UNITS, apex.T, strict=True) if column.max() > 0}
    assert moved == allowed
    assert apex.max() <= 5.0


def test_confusable_takes_overlap_and_others_do_not() -> None:
    rng = np.random.default_rng(1)
    jaw, smile = ACTION_UNITS.index(26), ACTION_UNITS.index(12)
    fearful, surprised, happy = (
        np.stack([show(emotion, 1.0, rng) for _ in range(300)])
        for emotion in ("fearful", "surprised", "happy")
    )
    # mixed evenly, about half of the frightened faces are on the surprised side of the middle
    middle = (EXPRESSIONS["fearful"][26] + EXPRESSIONS["surprised"][26]) / 2
    assert 0.3 < (fearful[:, jaw] > middle).mean() < 0.5 < (surprised[:, jaw] > middle).mean() < 0.7
    assert happy[:, smile].min() > 2.0 > fearful[:, smile].max()


def test_voices_keep_their_order() -> None:
    rng = np.random.default_rng(2)
    level, pitch, tempo = (
        {name: np.mean([getattr(speak(name, 1.0, rng), what) for _ in range(40)]) for name in VOICES}
        for what in ("level", "pitch", "tempo")
    )
    assert level["angry"] > level["happy"] > level["neutral"] > level["sad"]
    assert pitch["fearful"] > pitch["happy"] > pitch["neutral"] > pitch["sad"]
    assert tempo["fearful"] > tempo["neutral"] > tempo["sad"]
    strong, normal = (np.mean([speak("angry", s, rng).level for _ in range(40)]) for s in (1.0, 0.8))
    assert strong > normal


@pytest.mark.parametrize("emotion", MASKED)
def test_a_masked_take_shows_its_emotion_where_the_voice_says(emotion: str) -> None:
    rng = np.random.default_rng(3)
    faces = np.array([[EXPRESSIONS[name].get(unit, 0.0) for unit in ACTION_UNITS] for name in MASKED])
    places, masks = [], []
    for _ in range(300):
        apex, prosody = mask(emotion, 1.0, rng)
        place = "eyes" if prosody.level < (MANNERS["eyes"].level + MANNERS["mouth"].level) / 2 else "mouth"
        there = UPPER_FACE if place == "eyes" else ~UPPER_FACE
        own, other = (
            MASKED[int(np.abs(faces[:, half] - apex[half]).sum(axis=1).argmin())] for half in (there, ~there)
        )
        assert own == emotion != other
        places.append(place)
        masks.append(other)
    assert places.count("eyes") == pytest.approx(150, abs=35)
    assert masks.count(masks[0]) == pytest.approx(150, abs=35)


def test_the_manners_of_masked_takes_lie_far_apart() -> None:
    rng = np.random.default_rng(4)
    levels = np.sort([mask("happy", 1.0, rng)[1].level for _ in range(200)])
    assert np.diff(levels).max() > 10, "no voice lies between the two"
