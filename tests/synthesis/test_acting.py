"""The tables of expressions and voices, and their ambiguity."""

from collections import Counter

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


def test_what_one_modality_confuses_the_other_tells() -> None:
    assert tuple(EXPRESSIONS) == tuple(VOICES) == RAVDESS.emotions
    for pairs in CONFUSIONS.values():
        assert len({emotion for pair in pairs for emotion in pair}) == 2 * len(pairs) == 6, "one partner each"
    groups = {
        tuple(frozenset((emotion, partner(emotion, modality) or emotion)) for modality in CONFUSIONS)
        for emotion in RAVDESS.emotions
    }
    assert len(groups) == len(RAVDESS), "both together must tell all emotions apart"


@pytest.mark.parametrize("emotion", RAVDESS.emotions)
def test_a_face_shows_its_emotion_or_its_partners(emotion: str) -> None:
    rng = np.random.default_rng(0)
    allowed = set(EXPRESSIONS[emotion]) | set(EXPRESSIONS.get(partner(emotion, "video") or "", {}))
    apex = np.stack([show(emotion, 1.0, rng) for _ in range(50)])
    assert {unit for unit, column in zip(ACTION_UNITS, apex.T, strict=True) if column.max() > 0} == allowed
    assert apex.max() <= 5.0


def test_confusable_takes_overlap_and_others_do_not() -> None:
    rng = np.random.default_rng(1)
    fearful, surprised, happy = (
        np.stack([show(emotion, 1.0, rng) for _ in range(300)])
        for emotion in ("fearful", "surprised", "happy")
    )
    jaw, smile = ACTION_UNITS.index(26), ACTION_UNITS.index(12)
    # mixed evenly, about half of the frightened faces are on the surprised side of the middle
    middle = (EXPRESSIONS["fearful"][26] + EXPRESSIONS["surprised"][26]) / 2
    assert 0.3 < (fearful[:, jaw] > middle).mean() < 0.5 < (surprised[:, jaw] > middle).mean() < 0.7
    assert happy[:, smile].min() > 2.0 > fearful[:, smile].max()


def test_voices_keep_their_order() -> None:
    rng = np.random.default_rng(2)
    for figure, order in (
        ("level", ("angry", "happy", "neutral", "sad")),
        ("pitch", ("fearful", "happy", "neutral", "sad")),
        ("tempo", ("fearful", "neutral", "sad")),
    ):
        means = [np.mean([getattr(speak(name, 1.0, rng), figure) for _ in range(40)]) for name in order]
        assert means == sorted(means, reverse=True)
    strong, normal = (np.mean([speak("angry", s, rng).level for _ in range(40)]) for s in (1.0, 0.8))
    assert strong > normal


@pytest.mark.parametrize("emotion", MASKED)
def test_a_masked_take_shows_its_emotion_where_the_voice_says(emotion: str) -> None:
    rng = np.random.default_rng(3)
    faces = np.array([[EXPRESSIONS[name].get(unit, 0.0) for unit in ACTION_UNITS] for name in MASKED])
    middle = (MANNERS["eyes"].level + MANNERS["mouth"].level) / 2
    places, masks, levels = Counter[bool](), Counter[str](), []
    for _ in range(300):
        apex, prosody = mask(emotion, 1.0, rng)
        quiet = prosody.level < middle
        there = UPPER_FACE if quiet else ~UPPER_FACE
        own, other = (
            MASKED[int(np.abs(faces[:, half] - apex[half]).sum(axis=1).argmin())] for half in (there, ~there)
        )
        assert own == emotion != other
        places[quiet] += 1
        masks[other] += 1
        levels.append(prosody.level)
    assert [*places.values(), *masks.values()] == pytest.approx([150] * 4, abs=35)
    assert np.diff(np.sort(levels)).max() > 10, "no voice lies between the two"
