"""Acting: face and voice of each emotion, the emotions that are easily confused, the course of one take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple, dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cfnsr.media.openface import INTENSITIES

Array = NDArray[np.float64]
Modality = Literal["video", "audio"]

ACTION_UNITS = INTENSITIES  # the 17 whose intensity (0 to 5) OpenFace measures, in its own order

# Prototypes after Ekman, Friesen & Hager (2002), Facial Action Coding System: intensities when strong.
EXPRESSIONS: Mapping[str, Mapping[int, float]] = {
    "neutral": {},
    "calm": {12: 0.7, 45: 0.5},
    "happy": {6: 3.8, 12: 4.4, 25: 3.4},
    "sad": {1: 4.0, 4: 2.0, 7: 0.8, 15: 4.4, 17: 2.6, 45: 1.0},
    "angry": {4: 4.4, 5: 1.6, 7: 2.8, 17: 1.2, 23: 4.2},
    "fearful": {1: 4.2, 2: 2.4, 4: 2.0, 5: 4.2, 20: 4.0, 25: 2.8, 26: 1.4},
    "disgust": {4: 3.0, 6: 1.2, 7: 2.6, 9: 4.4, 10: 3.6, 15: 1.4, 17: 2.0},
    "surprised": {1: 4.4, 2: 4.4, 5: 3.8, 25: 2.6, 26: 3.4},
}


@dataclass(frozen=True)
class Prosody:
    """A manner of speaking.

    Args:
        pitch: semitones above the speaker's own middle pitch.
        accent: semitones by which stressed syllables rise.
        ending: semitones by which the last syllable glides up (or, below 0, down).
        level: loudness in dB beside neutral speech.
        tempo: syllable rate beside neutral speech.
        tilt: dB an octave by which the spectrum is brighter (pressed) or darker (lax) than neutral.
        breath: aspiration noise beside the voice, as a ratio of amplitudes.
        jitter: random deviation of each glottal period, as a fraction.
        rough: how much weaker every second glottal pulse is, 0 to 1 (creak, growl).
        tremor: depth of the 7 Hz trembling of loudness, 0 to 1.
    """

    pitch: float = 0.0
    accent: float = 2.0
    ending: float = -2.0
    level: float = 0.0
    tempo: float = 1.0
    tilt: float = 0.0
    breath: float = 0.06
    jitter: float = 0.006
    rough: float = 0.0
    tremor: float = 0.0


# Directions after Scherer (2003), Vocal communication of emotion, and Juslin & Laukka (2003).
VOICES: Mapping[str, Prosody] = {
    "neutral": Prosody(),
    "calm": Prosody(pitch=-1.5, accent=1.2, level=-10.0, tempo=0.82, tilt=-3.5, breath=0.25),
    "happy": Prosody(pitch=5.0, accent=6.0, ending=1.0, level=4.0, tempo=1.15, tilt=1.5),
    "sad": Prosody(pitch=-2.0, accent=1.0, ending=-4.0, level=-12.0, tempo=0.74, tilt=-4.5, breath=0.35),
    "angry": Prosody(3.0, 4.0, -4.0, level=10.0, tempo=1.12, tilt=5.0, breath=0.03, jitter=0.02, rough=0.6),
    "fearful": Prosody(8.0, 2.0, 2.0, -2.0, tempo=1.35, tilt=-0.5, breath=0.6, jitter=0.035, tremor=0.8),
    "disgust": Prosody(-2.0, 2.5, -4.0, level=-1.0, tempo=0.92, tilt=-0.8, jitter=0.01, rough=0.3),
    "surprised": Prosody(6.5, 7.0, 7.0, level=4.0, tempo=1.05, tilt=1.5, breath=0.08),
}
# Deviation from take to take, and the limits beyond which it would be no speech.
TAKE_TO_TAKE = Prosody(0.7, 0.4, 0.6, 1.0, 0.03, 0.4, 0.01, 0.001, 0.02, 0.02)
LEAST = Prosody(-12.0, 0.0, -12.0, -30.0, 0.7, -12.0, 0.0, 0.0, 0.0, 0.0)
MOST = Prosody(12.0, 12.0, 12.0, 15.0, 1.5, 12.0, 1.0, 0.1, 1.0, 1.0)


# Two emotions that are often confused by one modality alone. No pair is confused by both: face and voice
# together always suffice.
CONFUSIONS: Mapping[Modality, tuple[tuple[str, str], ...]] = {
    "video": (
        ("neutral", "calm"),  # both faces rest; a calm one only softens lids and lip corners
        ("fearful", "surprised"),  # both raise brows and lids and part the lips, fear a little less
        ("angry", "disgust"),  # both lower the brows and narrow the eyes over a tight mouth
    ),
    "audio": (
        ("happy", "surprised"),  # both are high, loud and lively; the glide at the end differs
        ("sad", "calm"),  # both are slow, low, soft and breathy
        ("neutral", "disgust"),  # disgust has a short, flat delivery near plain speech
    ),
}
# Fraction of its own emotion that a confusable take shows; the rest is its partner's. Drawn uniformly from
# this range, so nearly half of the takes are closer to the partner than to their own label.
OWN_SHARE = (0.1, 1.0)

# Masked takes, which only video and audio together can read: brows and eyes show one of these emotions, the
# mouth another, and the manner of speaking, which is that of no emotion, decides which of the two is meant.
MASKED = ("happy", "angry", "surprised")  # the most distinct in either half of the face
UPPER_FACE = np.isin(ACTION_UNITS, (1, 2, 4, 5, 6, 7, 45))
MANNERS: Mapping[str, Prosody] = {
    "eyes": Prosody(pitch=-1.0, accent=1.0, level=-17.0, tilt=-5.0, breath=1.0),  # under the breath
    "mouth": Prosody(pitch=1.0, accent=1.0, level=6.0, tilt=4.0, breath=0.03),  # out loud
}

BLINK_SECONDS = 0.11  # half the width of a blink
# Intensities of AU26 and AU25 at the widest vowel; no higher, for the face must still show its emotion.
SPEAKING_JAW, SPEAKING_LIPS = 1.3, 2.0


def partner(emotion: str, modality: Modality) -> str | None:
    """Emotion that it is confused with in that modality, if any.

    >>> partner("fearful", "video"), partner("fearful", "audio")
    ('surprised', None)
    """
    others = dict(CONFUSIONS[modality])
    return (others | {second: first for first, second in others.items()}).get(emotion)


def show(emotion: str, strength: float, rng: np.random.Generator) -> Array:
    """Draw the apex intensities (17,) of `ACTION_UNITS` for one take, ambiguous by `CONFUSIONS`.

    Args:
        emotion: to be acted.
        strength: 1 for a strong showing, less for a normal one.
    """
    faces = [_intensities(name) * share for name, share in _mixture(emotion, "video", rng)]
    return _vary_face(np.sum(faces, axis=0), strength, rng)


def speak(emotion: str, strength: float, rng: np.random.Generator) -> Prosody:
    """Draw the prosody of one take, ambiguous by `CONFUSIONS`; arguments as in `show`."""
    plain = np.array(astuple(VOICES["neutral"]))
    mixture = _mixture(emotion, "audio", rng)
    voices = [(np.array(astuple(VOICES[name])) - plain) * share for name, share in mixture]
    return _vary_voice(plain + sum(voices) * strength, rng)


def mask(emotion: str, strength: float, rng: np.random.Generator) -> tuple[Array, Prosody]:
    """Draw apex and prosody of a masked take of one of `MASKED`; arguments as in `show`.

    The half of the face that shows the emotion, and the emotion that masks it, are drawn uniformly.
    """
    place = str(rng.choice(list(MANNERS)))
    other = str(rng.choice([name for name in MASKED if name != emotion]))
    eyes, mouth = (emotion, other) if place == "eyes" else (other, emotion)
    face = np.where(UPPER_FACE, _intensities(eyes), _intensities(mouth))
    return _vary_face(face, strength, rng), _vary_voice(np.array(astuple(MANNERS[place])), rng)


def _mixture(emotion: str, modality: Modality, rng: np.random.Generator) -> list[tuple[str, float]]:
    share = float(rng.uniform(*OWN_SHARE))  # drawn always, so that the table does not shift later draws
    other = partner(emotion, modality)
    return [(emotion, 1.0)] if other is None else [(emotion, share), (other, 1.0 - share)]


def _intensities(emotion: str) -> Array:
    return np.array([EXPRESSIONS[emotion].get(unit, 0.0) for unit in ACTION_UNITS])


def _vary_face(face: Array, strength: float, rng: np.random.Generator) -> Array:
    return np.clip(face * strength * rng.normal(1.0, 0.08, len(ACTION_UNITS)), 0.0, 5.0)


def _vary_voice(values: Array, rng: np.random.Generator) -> Prosody:
    values = values + np.array(astuple(TAKE_TO_TAKE)) * rng.standard_normal(len(values))
    return Prosody(*np.clip(values, astuple(LEAST), astuple(MOST)).tolist())


@dataclass(frozen=True)
class Performance:
    """Visible movement of a take.

    Args:
        units: intensities (frames, 17) of `ACTION_UNITS`.
        rotation: pitch, yaw and roll (frames, 3) of the head in radians.
        shift: of the head (frames, 2), in distances between the pupils.
        scale: of the head (frames,), beside its mean size.
        gaze: shift of the irises (frames, 2), in distances between the pupils.
    """

    units: Array
    rotation: Array
    shift: Array
    scale: Array
    gaze: Array


def perform(apex: Array, opening: Array, fps: float, rng: np.random.Generator) -> Performance:
    """Let an expression rise, stay and fade while the mouth speaks, the eyes blink and the head moves.

    Args:
        apex: intensities (17,) at the height of the expression.
        opening: of the mouth by speech (frames,), 0 to 1.
    """
    count = len(opening)
    time = np.arange(count) / fps
    phase = np.linspace(0.0, 1.0, count)
    onset, offset = rng.uniform(0.02, 0.06), rng.uniform(0.9, 0.94)
    rise, fade = _smoothstep(phase, onset, onset + 0.1), _smoothstep(phase, offset, 1.0)
    course = 0.15 + 0.85 * rise * (1.0 - 0.5 * fade)
    liveliness = 1.0 + 0.06 * _wander(time, 1, 0.6, rng)
    units = apex * course[:, None] * liveliness
    blinks = rng.uniform(0.1, time[-1], rng.integers(0, 3))
    away = np.abs(time[:, None] - blinks[None]).min(axis=1, initial=np.inf)
    closed = 5.0 * np.clip(1.3 - away / BLINK_SECONDS, 0.0, 1.0)
    for unit, added in ((25, SPEAKING_LIPS * opening), (26, SPEAKING_JAW * opening), (45, closed)):
        units[:, ACTION_UNITS.index(unit)] += added
    return Performance(
        units=np.clip(units, 0.0, 5.0),
        rotation=_wander(time, 3, 0.45, rng) * np.radians((2.5, 4.0, 2.0)),
        shift=_wander(time, 2, 0.4, rng) * (0.05, 0.03),
        scale=1.0 + 0.015 * _wander(time, 1, 0.3, rng)[:, 0],
        gaze=_wander(time, 2, 0.5, rng) * (0.018, 0.008),
    )


def _smoothstep(phase: Array, start: float, stop: float) -> Array:
    part = np.clip((phase - start) / (stop - start), 0.0, 1.0)
    return part * part * (3.0 - 2.0 * part)


def _wander(time: Array, columns: int, hertz: float, rng: np.random.Generator) -> Array:
    """Slow smooth movement (frames, columns) of about unit size: a few sines around a frequency."""
    frequency = hertz * rng.uniform(0.4, 2.2, (3, 1, columns))
    start = rng.uniform(0.0, 2.0 * np.pi, (3, 1, columns))
    weight = np.array([1.0, 0.6, 0.4])[:, None, None]
    return np.asarray((weight * np.sin(2.0 * np.pi * frequency * time[None, :, None] + start)).sum(axis=0))
