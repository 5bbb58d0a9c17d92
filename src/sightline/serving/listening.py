"""Serving a page at an address of this machine, where no connection holds a place for long without a request."""

import asyncio
import ipaddress
import socket
from collections.abc import Callable
from typing import ClassVar

from sightline._core.optional import requires_extra
from sightline.errors import SightlineError

with requires_extra("rating", "a local page"):
    import uvicorn
    from starlette.types import ASGIApp
    from uvicorn.protocols.http.h11_impl import H11Protocol


def is_loopback(host: str) -> bool:
    """Return whether other machines cannot reach an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def listen(application: ASGIApp, token: str, host: str, port: int, announce: Callable[[str], object]) -> None:
    """Serve an application until it is interrupted.

    Args:
        application: answers the requests.
        token: what the link carries.
        host: the address to serve at; another than the loopback lets other machines in, over plain HTTP.
        port: 0 = any that is free.
        announce: is told the link, once the page can be opened.

    Raises:
        SightlineError: the address cannot be listened at.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family)
    except OSError as error:
        raise SightlineError(
            f"cannot serve at {host}, port {port}: {error.strerror or error}; choose another --port, or 0 for any free one"
        ) from error
    everywhere = host in ("0.0.0.0", "::")
    name = socket.gethostname() if everywhere else f"[{host}]" if ":" in host else host
    config = uvicorn.Config(
        application,
        access_log=False,  # it would write the token of every link
        log_level="warning",
        server_header=False,
        http=TimedProtocol,
        ws="none",
        limit_concurrency=200,
        timeout_graceful_shutdown=3,
    )
    with listener:
        announce(f"http://{name}:{listener.getsockname()[1]}/?token={token}")
        uvicorn.Server(config).run(sockets=[listener])


class TimedProtocol(H11Protocol):
    """HTTP/1.1 that closes a connection whose next request does not arrive in time.

    uvicorn waits for the head of a request without end, and its `limit_concurrency` counts every open connection. Some hundred
    half-open connections then keep all others out. Here the limit counts the requests that are being answered.

    Attributes:
        head_seconds: how long the head of a request may take to arrive.
    """

    head_seconds: ClassVar[float] = 10.0
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start to wait for the first request."""
        super().connection_made(transport)
        self.connections.discard(self)
        self._wait()

    def data_received(self, data: bytes) -> None:
        """Take what has arrived; the wait ends when a request is complete enough to be answered."""
        self._wait()
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_waiting()

    def send_400_response(self, msg: str) -> None:
        """Reject what is no request. If it breaks into a request that is being answered, that answer has nowhere to go."""
        cycle = self.cycle
        if cycle is None or cycle.response_complete:
            super().send_400_response(msg)
            return
        cycle.disconnected = True
        cycle.message_event.set()
        if cycle.response_started:
            self.transport.close()
        else:
            super().send_400_response(msg)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._stop_waiting()
        super().connection_lost(exc)

    def _wait(self) -> None:
        if self._deadline is None:
            self._deadline = self.loop.call_later(self.head_seconds, self.transport.close)

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
