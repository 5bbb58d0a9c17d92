import json
import signal
import threading
import urllib.error
import urllib.request

import pytest

pytest.importorskip("uvicorn")
pytest.importorskip("cv2")

from sessions import Discs, serving

from sightline.marking.app import FILE
from sightline.marking.store import Store

KINDS = (
    {"kind": "judge", "judgement": "wrong"},
    {"kind": "stroke", "layer": "object", "path": [[0.2, 0.2], [0.6, 0.6]], "radius": 0.05, "erase": False},
    {"kind": "box", "layer": "avoid", "x0": 0.0, "y0": 0.0, "x1": 0.3, "y1": 0.2},
)


def test_a_killed_server_loses_no_acknowledged_mark(tmp_path):
    data, folder = Discs(16), tmp_path / "fixed"
    store = Store.open(folder / FILE, data.fingerprint, 16)
    people = [store.join(None) for _ in range(4)]
    session = store.id
    store.close()
    acknowledged: list[tuple[int, str]] = []
    with serving(folder, 16) as (process, address, token):

        def marks(number: int, secret: str) -> None:
            cookie = f"session-{session}={token}; person-{session}={secret}"
            for image in range(number, 16, 4):
                for action in KINDS:
                    body = json.dumps({"image": image, "action": action}).encode()
                    headers = {"Content-Type": "application/json", "Cookie": cookie}
                    try:
                        with urllib.request.urlopen(
                            urllib.request.Request(f"{address}/mark", body, headers), timeout=30
                        ) as answer:
                            acknowledged.append((json.load(answer)["image"], action["kind"]))
                    except (OSError, urllib.error.URLError):
                        return
                    if len(acknowledged) >= 20:
                        process.send_signal(signal.SIGKILL)

        threads = [threading.Thread(target=marks, args=(n, person.secret)) for n, person in enumerate(people)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert process.wait() == -signal.SIGKILL
    assert 20 <= len(acknowledged) < 48
    kept = Store.open(folder / FILE, data.fingerprint, 16)  # and the session goes on
    for image, kind in acknowledged:
        assert kind in [action["kind"] for action in kept.history(image)]
        mark = kept.marks()[image]
        found = {"judge": mark.judgement == "wrong", "stroke": mark.object is not None, "box": mark.avoid is not None}
        assert found[kind]
