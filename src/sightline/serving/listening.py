"""Serving a page at an address of this machine."""

import ipaddress
import socket
from collections.abc import Callable

from sightline._core.optional import requires_extra
from sightline.errors import SightlineError
from sightline.serving.connections import TimedProtocol

with requires_extra("rating", "a local page"):
    import uvicorn
    from starlette.types import ASGIApp


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
