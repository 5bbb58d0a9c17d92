import json
import signal
import threading
import urllib.error
import urllib.request

import pytest

from studies import make_study, serving

pytest.importorskip("uvicorn")

from sightline.rating.store import Store


def test_a_killed_server_loses_no_acknowledged_vote(tmp_path):
    path = tmp_path / "study.sqlite"
    store = make_study(path, pairs=15)
    secrets = [store.join(None).secret for _ in range(8)]
    study = store.id
    store.close()
    acknowledged: set[tuple[int, int, str]] = set()
    with serving(path) as (process, address, token):

        def votes(rater: int, secret: str) -> None:
            for pair in range(15):
                choice = ("first", "second", "same")[(rater + pair) % 3]
                request = urllib.request.Request(
                    f"{address}/vote",
                    json.dumps({"pair": pair, "choice": choice}).encode(),
                    {"Content-Type": "application/json", "Cookie": f"study-{study}={token}; rater-{study}={secret}"},
                )
                try:
                    with urllib.request.urlopen(request, timeout=30) as answer:
                        told = json.load(answer)
                        acknowledged.add((rater, told["pair"], told["choice"]))
                except (OSError, urllib.error.URLError):
                    return
                if len(acknowledged) >= 40:
                    process.send_signal(signal.SIGKILL)

        threads = [threading.Thread(target=votes, args=(n, secret)) for n, secret in enumerate(secrets, start=1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert process.wait() == -signal.SIGKILL
    assert 40 <= len(acknowledged) < 8 * 15
    kept = {
        (vote.rater, vote.pair, "same" if vote.choice == "same" else "first" if vote.choice == vote.first else "second")
        for vote in Store(path).votes()
    }
    assert acknowledged <= kept
    with serving(path) as (_, address, token):  # and the study goes on
        request = urllib.request.Request(
            f"{address}/state", headers={"Cookie": f"study-{study}={token}; rater-{study}={secrets[0]}"}
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            state = json.load(answer)
    assert {(1, p["pair"], p["choice"]) for p in state["pairs"] if p["choice"]} >= {
        a for a in acknowledged if a[0] == 1
    }
