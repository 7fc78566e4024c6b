"""Limits: sizes, lengths, how many at once, how long."""

from __future__ import annotations

import math
from dataclasses import dataclass

from cfnsr.data.windows import HOP
from cfnsr.errors import InputError

MEBIBYTE = 1024 * 1024
MOST_PIXELS = 4096 * 2304  # of a picture: 4K, as phones film it
MOST_EXPLAINED = 60  # windows in one answer: each costs several passes of the model
MOST_KEPT = 100  # finished jobs, of which the results are kept
MOST_UPLOADS_KEPT = 8  # recordings that wait for questions
LEAST = {"queue": 0, "keep_seconds": 0, "stall_seconds": 0.1, "upload_seconds": 0.1}  # else 1


@dataclass(frozen=True)
class Limits:
    """Limits of one server; the defaults suit one person's machine.

    Args:
        max_bytes: of an upload.
        max_seconds: of a recording. With windows closer to each other than usual it is less: see `windows`.
        queue: uploads that may arrive or wait, besides those being worked on.
        workers: recordings worked on at once. One suits a CPU, whose cores one model already takes.
        keep_seconds: a result is kept so long, and a recording where explanations may follow.
        stall_seconds: an upload of which nothing arrives for so long is given up.
        upload_seconds: an upload that takes longer is given up.

    Raises:
        InputError: a limit that leaves nothing.
    """

    max_bytes: int = 200 * MEBIBYTE
    max_seconds: float = 600.0
    queue: int = 16
    workers: int = 1
    keep_seconds: float = 600.0
    stall_seconds: float = 20.0
    upload_seconds: float = 600.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            least = LEAST.get(name, 1)
            if not least <= value < math.inf:
                raise InputError(f"{name} is {value:g}: expected {least:g} or more")

    @property
    def windows(self) -> int:
        """Windows of one recording: as many as the longest one has with the usual hop.

        >>> Limits(max_seconds=90).windows
        90
        """
        return max(1, round(self.max_seconds / HOP))

    @property
    def places(self) -> int:
        """Uploads that may arrive, wait and be worked on."""
        return self.queue + self.workers
