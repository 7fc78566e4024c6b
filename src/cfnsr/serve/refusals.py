"""A declined request: a status, a reason for programs and one line for people."""

from __future__ import annotations

from typing import Any, Literal

from starlette.responses import JSONResponse

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


class Refusal(Exception):  # noqa: N818 - declining is no fault
    """A request that is declined.

    Args:
        status: HTTP's.
        reason: for programs.
        message: one line: what was given, what was expected, what to do. It names no path of this machine.
        headers: that go with it.
    """

    def __init__(
        self, status: int, reason: Reason, message: str, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.reason, self.headers = status, reason, headers or {}

    def as_json(self) -> dict[str, Any]:
        """Return the reason and the message, as a client gets them."""
        return {"reason": self.reason, "message": str(self)}

    def response(self) -> JSONResponse:
        """Build the answer to the request."""
        return JSONResponse({"error": self.as_json()}, self.status, self.headers)


def internal() -> Refusal:
    """Decline after a fault of the server, which its log describes."""
    return Refusal(500, "internal", "the server failed: its log says why")
