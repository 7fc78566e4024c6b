"""The gate: requests from other sites and too many are declined, and answers carry security headers."""

from __future__ import annotations

import re
from collections.abc import Collection

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cfnsr.serve.refusals import Refusal

LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]"})

# The page's own files and nothing else; recordings are played from the browser's memory (blob:).
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' blob:; "
    "media-src 'self' blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(self), microphone=(self), geolocation=(), display-capture=()",
    "cache-control": "no-store",
}
MOST = 100  # requests at a time; those that wait for a prediction are fewer, see `Limits.queue`
RETRY_SECONDS = 5
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})


class Guard:
    """Declines requests under a strange name or from another site, or too many, and marks every answer.

    A page on the web can let its reader's browser ask a server on the same machine: by a name of its own that
    it points to 127.0.0.1 (DNS rebinding), or by a form that posts there. The first shows in the `Host`
    header, the second in `Origin` and `Sec-Fetch-Site`. Programs send neither of these two.
    """

    def __init__(self, app: ASGIApp, hosts: Collection[str] | None = LOOPBACK) -> None:
        self.app, self.hosts = app, None if hosts is None else {host.lower() for host in hosts}
        self.running = 0  # requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        refusal = self._refusal(scope["method"], Headers(scope=scope))
        self.running += 1
        try:
            await (self.app if refusal is None else refusal.response())(scope, receive, marked)
        finally:
            self.running -= 1

    def _refusal(self, method: str, headers: Headers) -> Refusal | None:
        host = headers.get("host", "").lower()
        if self.hosts is not None and name_of(host) not in self.hosts:
            message = f"the server is not called {name_of(host)[:80]!r}: expected "
            return Refusal(400, "forbidden", message + ", ".join(sorted(self.hosts)))
        if self.running >= MOST:
            message = f"{MOST} requests are under way: try again in {RETRY_SECONDS} s"
            return Refusal(503, "busy", message, {"retry-after": str(RETRY_SECONDS)})
        if method in SAFE:
            return None
        strange = any(origin.lower().partition("://")[2] != host for origin in headers.getlist("origin"))
        if strange or not set(headers.getlist("sec-fetch-site")) <= {"none", "same-origin"}:
            return Refusal(403, "forbidden", "another site asked: expected the own page, or a program")
        return None


def name_of(host: str) -> str:
    """Cut the port off a `Host` header.

    >>> name_of("localhost:8000"), name_of("[::1]:8000"), name_of("127.0.0.1")
    ('localhost', '[::1]', '127.0.0.1')
    """
    return re.sub(r":\d+$", "", host)
