"""The page for a class of raters, beside clients that misbehave."""

import json
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from rude_clients import RudeClients
from studies import make_study, serving

pytest.importorskip("uvicorn")

from sightline.rating.store import Store

PEOPLE, PAIRS = 50, 6


@pytest.mark.slow
def test_fifty_people_vote_during_half_open_connections_and_malformed_requests(tmp_path, capfd):
    path = tmp_path / "study.sqlite"
    store = make_study(path, pairs=PAIRS)
    secrets = [store.join(None).secret for _ in range(PEOPLE)]
    study = store.id
    store.close()
    with serving(path, head_seconds=4) as (process, address, token), ExitStack() as stack:

        def rate(secret: str) -> int:
            headers = {"Cookie": f"study-{study}={token}; rater-{study}={secret}", "Content-Type": "application/json"}
            for pair in range(PAIRS):
                body = json.dumps({"pair": pair, "choice": "first"}).encode()
                request = urllib.request.Request(f"{address}/vote", body, headers)
                with urllib.request.urlopen(request, timeout=60) as answer:
                    assert answer.status == 200
            return PAIRS

        pool = stack.enter_context(ThreadPoolExecutor(PEOPLE + 4))
        began = time.monotonic()
        rude = RudeClients(address, ["/vote", "/join"], ["/picture"], stack, pool)
        assert sum(pool.map(rate, secrets)) == PEOPLE * PAIRS
        rude.end(max(1, 30 - (time.monotonic() - began)))
        assert process.poll() is None
    assert "Traceback" not in capfd.readouterr().err
    assert len(list(Store(path).votes())) == PEOPLE * PAIRS
