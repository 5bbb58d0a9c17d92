"""The page for a class of raters, beside clients that misbehave."""

import json
import random
import socket
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from urllib.parse import urlsplit

import pytest

from studies import make_study, serving

pytest.importorskip("uvicorn")

from sightline.rating.store import Store

PEOPLE, PAIRS, HALF_OPEN = 50, 6, 250
BEGUN = b"GET / HTTP/1.1\r\nHost: here\r\nX-More: "


def malformed(count: int) -> list[bytes]:
    """Requests that are none: random bytes, and real requests with random bytes in them."""
    draw = random.Random(0)
    requests = [
        b'POST /vote HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{"pair":}',
        b"POST /vote HTTP/1.1\r\nHost: h\r\nContent-Length: 99999999999\r\n\r\n{}",
        b"GET /picture/../../etc/passwd HTTP/1.1\r\nHost: h\r\n\r\n",
        b"POST /join HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ]
    for _ in range(count):
        bad = bytearray(draw.choice(requests))
        for _ in range(draw.randrange(8)):
            bad[draw.randrange(len(bad))] = draw.randrange(256)
        requests.append(bytes(bad) if draw.random() < 0.7 else draw.randbytes(draw.randrange(1, 400)))
    return requests


@pytest.mark.slow
def test_fifty_people_vote_beside_half_open_connections_and_malformed_requests(tmp_path):
    path = tmp_path / "study.sqlite"
    store = make_study(path, pairs=PAIRS)
    secrets = [store.join(None).secret for _ in range(PEOPLE)]
    study = store.id
    store.close()
    with serving(path, head_seconds=4) as (process, address, token), ExitStack() as stack:
        place = (urlsplit(address).hostname, urlsplit(address).port)

        def connect() -> socket.socket:
            return stack.enter_context(socket.create_connection(place, timeout=30))

        def rate(secret: str) -> int:
            headers = {"Cookie": f"study-{study}={token}; rater-{study}={secret}", "Content-Type": "application/json"}
            for pair in range(PAIRS):
                body = json.dumps({"pair": pair, "choice": "first"}).encode()
                with urllib.request.urlopen(
                    urllib.request.Request(f"{address}/vote", body, headers), timeout=60
                ) as answer:
                    assert answer.status == 200
            return PAIRS

        def send(request: bytes) -> None:
            with socket.create_connection(place, timeout=30) as client:
                client.sendall(request)

        half_open = [connect() for _ in range(HALF_OPEN)]
        for number, client in enumerate(half_open):
            client.sendall(BEGUN[: number % len(BEGUN)])
        began = time.monotonic()
        with ThreadPoolExecutor(PEOPLE + 4) as pool:
            floods = [pool.submit(send, request) for request in malformed(300)]
            assert sum(pool.map(rate, secrets)) == PEOPLE * PAIRS
            for flood in floods:
                flood.result()
        took = time.monotonic() - began
        assert process.poll() is None
        for client in half_open:  # a head that does not arrive in time costs its client the connection
            client.settimeout(max(1, 30 - took))
            assert client.recv(1) in (b"", b"H")
    assert len(list(Store(path).votes())) == PEOPLE * PAIRS
