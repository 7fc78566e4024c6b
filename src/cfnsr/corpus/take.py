"""A take: what an actor performed once, and the files that recorded it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

VIDEO_SUFFIXES = frozenset({".mp4", ".flv", ".mov", ".mkv", ".avi", ".webm", ".m4v", ".mpg", ".mpeg"})
AUDIO_SUFFIXES = frozenset({".wav", ".flac", ".mp3", ".m4a", ".ogg", ".aac"})
MEDIA_SUFFIXES = VIDEO_SUFFIXES | AUDIO_SUFFIXES

Actor = int | str


@dataclass(frozen=True)
class Take:
    """One performance by one actor.

    Args:
        name: unique in its corpus; the stem of the file it is named after.
        emotion: a label of the corpus's label set.
        actor: who performed it; folds never split an actor.
        video: the file with the pictures, if any.
        audio: the file with the sound, if any; the same file as `video` for an audio-video take.
        openface: the take's OpenFace CSV, if any.
        sex: "male", "female" or None where the corpus does not tell.
        attributes: what else the file name tells (intensity, statement, repetition, ...).
    """

    name: str
    emotion: str
    actor: Actor
    video: Path | None = None
    audio: Path | None = None
    openface: Path | None = None
    sex: str | None = None
    attributes: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
