"""A process that serves the page: on this machine alone, unless `public`."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import socket
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from cfnsr.errors import InputError
from cfnsr.serve.guard import LOOPBACK

if TYPE_CHECKING:
    from fastapi import FastAPI

HOST, PORT = "127.0.0.1", 8000
IDLE_SECONDS = 5  # a connection without a request is kept
HEAD_SECONDS = 10  # that a request's head may take
FINISH_SECONDS = 5  # that running requests have when the server stops; then their work is given up
LEAVE_SECONDS = 8  # until those that are left are cut


def serve(
    app: FastAPI,
    *,
    host: str = HOST,
    port: int = PORT,
    public: bool = False,
    started: Callable[[str], object] = lambda address: None,
) -> None:
    """Serve an application until Ctrl-C; requests have five seconds to finish, or are answered as cancelled.

    Args:
        app: from `create_app`.
        port: 0 takes a free one.
        public: let other machines in: there are neither passwords nor encryption.
        started: called with the page's address once it listens; what is asked from then on is answered.

    Raises:
        InputError: an address that others reach, without `public`; or one that cannot be had.
    """
    with listen(host, port, public=public) as listener:
        name, number = listener.getsockname()[:2]
        started(f"http://{_bracketed(name)}:{number}/")
        Server(app).run([listener])


class Connection(H11Protocol):
    """uvicorn's connection, closed where no whole request comes: uvicorn waits for the first for ever."""

    timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._wait()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._wait()

    def connection_lost(self, error: Exception | None) -> None:
        super().connection_lost(error)
        self._wait(over=True)

    def _wait(self, *, over: bool = False) -> None:
        if self.timer is not None:
            self.timer.cancel()
        self.timer = None if over else self.loop.call_later(HEAD_SECONDS, self._left)

    def _left(self) -> None:
        if self.cycle is None or self.cycle.response_complete:  # no request is under way
            self.transport.close()


class Server(uvicorn.Server):
    """uvicorn's server: it logs nobody, and deletes uploads at its end."""

    def __init__(self, app: FastAPI) -> None:
        self.jobs = app.state.jobs
        config = uvicorn.Config(
            app,
            http=Connection,
            loop="asyncio",
            ws="none",
            lifespan="on",
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=IDLE_SECONDS,
            timeout_graceful_shutdown=LEAVE_SECONDS,
        )
        super().__init__(config)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Leave once: on a second Ctrl-C, uvicorn would not let the application clean up."""
        if not self.should_exit:
            super().handle_exit(sig, frame)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Finish what runs; what takes too long is answered as cancelled, where uvicorn would cut it."""
        asyncio.get_running_loop().call_later(FINISH_SECONDS, self.jobs.stop)
        await super().shutdown(sockets)


def listen(host: str, port: int, *, public: bool = False) -> socket.socket:
    """Open a socket that listens; raise `InputError` as `serve` does."""
    if not public and not is_loopback(host):
        raise InputError(
            f"--host {host} lets other machines in: expected 127.0.0.1, or --public beside it; there are "
            "neither passwords nor encryption, so put a proxy with both in front"
        )
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=128)
    except (OSError, OverflowError) as error:
        why = str(getattr(error, "strerror", None) or error).split(" (while")[0].rstrip(".")
        elsewhere = isinstance(error, socket.gaierror) or getattr(error, "errno", 0) == errno.EADDRNOTAVAIL
        option = "--host, an address of this machine" if elsewhere else "--port"
        raise InputError(f"cannot listen at {host}, port {port} ({why}): give another {option}") from None


def is_loopback(host: str) -> bool:
    """Look whether only this machine reaches an address.

    >>> is_loopback("localhost"), is_loopback("::1"), is_loopback("0.0.0.0"), is_loopback("example.org")
    (True, True, False, False)
    """
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def hosts_of(host: str) -> set[str] | None:
    """List the names in a `Host` header that are this server's; None, for any, where it listens everywhere.

    >>> hosts_of("0.0.0.0"), sorted(hosts_of("::2"))
    (None, ['127.0.0.1', '[::1]', '[::2]', 'localhost'])
    """
    everywhere = host in ("0.0.0.0", "::", "")  # noqa: S104 - compared, not bound
    return None if everywhere else {*LOOPBACK, _bracketed(host)}


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
