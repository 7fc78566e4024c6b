"""A process that serves the page: on this machine alone, unless told otherwise."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import socket
from collections.abc import Callable, Collection
from types import FrameType
from typing import TYPE_CHECKING, Any

from cfnsr.errors import InputError

if TYPE_CHECKING:
    from fastapi import FastAPI
    from uvicorn import Config, Server

HOST, PORT = "127.0.0.1", 8000
HEADER_SECONDS = 10.0  # for the head of a request to arrive
IDLE_SECONDS = 5  # a connection without a request is kept
LEAVE_SECONDS = 5  # requests may still take when the server is told to stop
CONNECTIONS = 100


def serve(
    app: FastAPI,
    *,
    host: str = HOST,
    port: int = PORT,
    public: bool = False,
    started: Callable[[str], object] = lambda address: None,
) -> None:
    """Serve an application until Ctrl-C.

    Args:
        app: from `create_app`.
        host: address to listen at.
        port: to listen at; 0 takes a free one.
        public: let other machines in: there are neither passwords nor encryption.
        started: called with the page's address once it answers.

    Raises:
        InputError: an address that others reach, without `public`; or one that cannot be had.
    """
    with listen(host, port, public=public) as listener:
        server = _server(app.state.jobs.stop)(configure(app))
        address = address_of(listener)

        async def run() -> None:
            serving = asyncio.create_task(server.serve(sockets=[listener]))
            while not server.started and not serving.done():
                await asyncio.sleep(0.02)
            if server.started:
                started(address)
            await serving

        asyncio.run(run())


def listen(host: str, port: int, *, public: bool = False) -> socket.socket:
    """A socket that listens.

    Raises:
        InputError: an address that others reach, without `public`; or one that cannot be had.
    """
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
    """Whether only this machine reaches an address.

    >>> is_loopback("localhost"), is_loopback("::1"), is_loopback("0.0.0.0"), is_loopback("example.org")
    (True, True, False, False)
    """
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def address_of(listener: socket.socket) -> str:
    """The page's address."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


def hosts_of(host: str, names: Collection[str] = ()) -> set[str] | None:
    """What `Host` headers may say: names of this machine, and those that are given.

    None, which is any, for an address that stands for all of them, unless names are given.

    >>> hosts_of("0.0.0.0"), sorted(hosts_of("0.0.0.0", ["box.lan"]))
    (None, ['127.0.0.1', '[::1]', 'box.lan', 'localhost'])
    """
    own = {"localhost", "127.0.0.1", "[::1]", *names}
    if is_loopback(host) or names:
        return own | ({f"[{host}]" if ":" in host else host} if is_loopback(host) else set())
    if host in ("0.0.0.0", "::", ""):  # noqa: S104 - compared, not bound
        return None
    return own | {f"[{host}]" if ":" in host else host}


def configure(app: Any) -> Config:
    """How uvicorn serves: no log of who asked what, no header that names it, no patience with the slow."""
    import uvicorn

    return uvicorn.Config(
        app,
        http=_protocol(),
        ws="none",
        lifespan="on",
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=CONNECTIONS,
        timeout_keep_alive=IDLE_SECONDS,
        timeout_graceful_shutdown=LEAVE_SECONDS,
    )


def _server(leave: Callable[[], object]) -> type[Server]:
    """uvicorn's server, which on a second Ctrl-C would drop the application without letting it clean up.

    Args:
        leave: called in the event loop when the server is told to stop, so that no request keeps it.
    """
    from uvicorn import Server

    class Orderly(Server):
        """Leaves once, however often it is told to; it takes `LEAVE_SECONDS` at most, and a window's work."""

        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            if not self.should_exit:
                super().handle_exit(sig, frame)
                asyncio.get_event_loop().call_soon_threadsafe(leave)

    return Orderly


def _protocol() -> type[asyncio.Protocol]:
    """HTTP by h11 for requests whose head arrives in time; uvicorn itself would wait for ever."""
    from uvicorn.protocols.http.h11_impl import H11Protocol

    class Impatient(H11Protocol):
        """Cuts a connection on which a request has begun, and its head does not come to an end."""

        deadline: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._wait()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self._between():
                self._wait()
            elif self.deadline is not None:
                self.deadline.cancel()
                self.deadline = None

        def connection_lost(self, exc: Exception | None) -> None:
            if self.deadline is not None:
                self.deadline.cancel()
            super().connection_lost(exc)

        def _between(self) -> bool:
            """Whether no request is being answered."""
            return self.cycle is None or self.cycle.response_complete

        def _wait(self) -> None:
            if self.deadline is None:
                self.deadline = self.loop.call_later(HEADER_SECONDS, self._give_up)

        def _give_up(self) -> None:
            self.deadline = None
            if self._between():
                self.transport.close()

    return Impatient
