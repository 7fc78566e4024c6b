"""Reasons why a recording cannot be used: a closed set, so that failures can be counted."""

from typing import Any, Literal, get_args

from cfnsr.errors import InputError

Reason = Literal[
    "missing",  # there is no such file
    "not media",  # a folder, or a file that is neither video nor sound
    "broken",  # video or sound that cannot be opened or decoded
    "truncated",  # it ends before the length it declares
    "no picture",
    "no sound",
    "no face",
    "no speech",  # there is sound, and silence where the model reads it
    "too short",
    "too long",
    "too large",  # its pictures
]
REASONS: tuple[Reason, ...] = get_args(Reason)


class MediaError(InputError):
    """A recording that cannot be used: one line of text and a `reason` out of `REASONS`.

    >>> error = MediaError("no sound", "clip.mp4 has no sound track: give a recording with sound")
    >>> error.reason, str(error)
    ('no sound', 'clip.mp4 has no sound track: give a recording with sound')
    """

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason: Reason = reason

    def __reduce__(self) -> tuple[Any, ...]:  # from a worker's process
        return MediaError, (self.reason, str(self)), self.__dict__
