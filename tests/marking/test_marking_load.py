"""The marking page for many people at once, beside clients that misbehave."""

import json
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from rude_clients import RudeClients

pytest.importorskip("uvicorn")
pytest.importorskip("cv2")

from sessions import Discs, serving

from sightline.marking.app import FILE
from sightline.marking.store import Store

PEOPLE, IMAGES = 50, 100
KINDS = (
    {"kind": "judge", "judgement": "wrong"},
    {"kind": "click", "layer": "object", "x": 0.5, "y": 0.5, "inside": True},
    {"kind": "stroke", "layer": "avoid", "path": [[0.2, 0.2], [0.6, 0.6]], "radius": 0.05, "erase": False},
)


@pytest.mark.slow
def test_fifty_people_mark_during_half_open_connections_and_malformed_requests(tmp_path, capfd):
    data, folder = Discs(IMAGES), tmp_path / "fixed"
    store = Store.open(folder / FILE, data.fingerprint, IMAGES)
    people = [store.join(None) for _ in range(PEOPLE)]
    session = store.id
    store.close()
    with serving(folder, IMAGES, head_seconds=4) as (process, address, token), ExitStack() as stack:

        def mark(number: int) -> int:
            cookie = f"session-{session}={token}; person-{session}={people[number].secret}"
            headers = {"Cookie": cookie, "Content-Type": "application/json"}
            for image in range(number, IMAGES, PEOPLE):
                for action in KINDS:
                    body = json.dumps({"image": image, "action": action}).encode()
                    request = urllib.request.Request(f"{address}/mark", body, headers)
                    with urllib.request.urlopen(request, timeout=60) as answer:
                        assert answer.status == 200
            return len(range(number, IMAGES, PEOPLE))

        pool = stack.enter_context(ThreadPoolExecutor(PEOPLE + 4))
        began = time.monotonic()
        rude = RudeClients(address, ["/mark", "/join", "/refit"], ["/image", "/static"], stack, pool)
        assert sum(pool.map(mark, range(PEOPLE))) == IMAGES
        rude.end(max(1, 30 - (time.monotonic() - began)))
        assert process.poll() is None
    assert "Traceback" not in capfd.readouterr().err
    kept = Store.open(folder / FILE, data.fingerprint, IMAGES)
    for image in range(IMAGES):
        assert [action["kind"] for action in kept.history(image)] == [action["kind"] for action in KINDS]
