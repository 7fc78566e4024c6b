"""How a request is declined: a status, a reason for programs and one line for people."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, get_args

from cfnsr.media.errors import MediaError
from cfnsr.media.errors import Reason as MediaReason

Reason = Literal[
    MediaReason,
    "bad request",  # not the form that is expected, or a value that cannot be
    "forbidden",  # asked by another site, or under another name
    "not found",
    "not done",  # the job has no result yet
    "gone",  # the recording was deleted
    "no answer",  # the model abstained, so that there is nothing to explain
    "unsupported",  # this model cannot
    "timeout",
    "too large",
    "busy",
    "full disk",
    "internal",
]
REASONS: tuple[str, ...] = tuple(
    reason for part in get_args(Reason) for reason in ([part] if isinstance(part, str) else get_args(part))
)


class Refusal(Exception):  # noqa: N818 - declining is no fault
    """A request that is declined.

    Args:
        status: HTTP's.
        reason: one of `REASONS`.
        message: one line: what was given, what was expected, what to do. It names no path of this machine.
        headers: that go with it.

    >>> refusal = Refusal(429, "busy", "too many wait: try again in 2 s", {"retry-after": "2"})
    >>> refusal.status, refusal.as_json()
    (429, {'error': {'reason': 'busy', 'message': 'too many wait: try again in 2 s'}})
    """

    def __init__(
        self, status: int, reason: Reason, message: str, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.reason, self.headers = status, reason, headers or {}

    def as_json(self) -> dict[str, Any]:
        """The body of the response."""
        return {"error": {"reason": self.reason, "message": str(self)}}


def of_media(error: MediaError, file: Path) -> Refusal:
    """What is wrong with an upload, without the folder that it lies in.

    >>> of_media(MediaError("broken", "/tmp/x/upload.mp4 is empty: copy it"), Path("/tmp/x/upload.mp4")).args
    ('upload.mp4 is empty: copy it',)
    """
    message = str(error).replace(str(file), file.name)
    for option in ("video", "audio"):  # as the API calls it
        message = message.replace(f"--{option}-stream", f"{option}_stream")
    return Refusal(422, error.reason, message)


def internal() -> Refusal:
    """A fault of the server, of which its log tells more than a client needs to know."""
    return Refusal(500, "internal", "the server failed: its log says why")
