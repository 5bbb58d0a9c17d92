"""Clients that misbehave: connections that never send a whole request, and requests that are none."""

import random
import socket
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from urllib.parse import urlsplit

HALF_OPEN, MALFORMED = 250, 300
BEGUN = b"GET / HTTP/1.1\r\nHost: here\r\nX-More: "


class RudeClients:
    """Clients of the page at an address that misbehave at the same time.

    Args:
        address: of the page.
        posts: paths that take a body.
        gets: paths of files, followed by whatever somebody likes.
        stack: closes the connections.
        pool: its threads send the malformed requests.
    """

    def __init__(
        self, address: str, posts: list[str], gets: list[str], stack: ExitStack, pool: ThreadPoolExecutor
    ) -> None:
        self.place = (urlsplit(address).hostname, urlsplit(address).port)
        self.half_open = [stack.enter_context(socket.create_connection(self.place, 30)) for _ in range(HALF_OPEN)]
        for number, client in enumerate(self.half_open):
            client.sendall(BEGUN[: number % len(BEGUN)])
        self.floods: list[Future[None]] = [pool.submit(self._send, each) for each in malformed(posts, gets, MALFORMED)]

    def end(self, seconds: float) -> None:
        """See that each half-open connection is closed, or answered, within some seconds."""
        for flood in self.floods:
            flood.result()
        for client in self.half_open:
            client.settimeout(seconds)
            assert client.recv(1) in (b"", b"H")

    def _send(self, request: bytes) -> None:
        with socket.create_connection(self.place, 30) as client:
            client.sendall(request)


def malformed(posts: list[str], gets: list[str], count: int) -> list[bytes]:
    """Requests that are none: random bytes, and real requests with random bytes in them."""
    draw = random.Random(0)
    requests = [
        f"{line} HTTP/1.1\r\nHost: h\r\n{rest}".encode()
        for post in posts
        for line, rest in (
            (f"POST {post}", 'Content-Type: application/json\r\nContent-Length: 9\r\n\r\n{"pair":}'),
            (f"POST {post}", "Content-Length: 99999999999\r\n\r\n{}"),
            (f"POST {post}", "Transfer-Encoding: chunked\r\n\r\nzz\r\n"),
        )
    ] + [f"GET {get}/../../etc/passwd HTTP/1.1\r\nHost: h\r\n\r\n".encode() for get in gets]
    for _ in range(count):
        bad = bytearray(draw.choice(requests))
        for _ in range(draw.randrange(8)):
            bad[draw.randrange(len(bad))] = draw.randrange(256)
        requests.append(bytes(bad) if draw.random() < 0.7 else draw.randbytes(draw.randrange(1, 400)))
    return requests
