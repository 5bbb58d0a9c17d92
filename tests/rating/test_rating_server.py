import json
import sqlite3

import pytest

from studies import make_study

pytest.importorskip("starlette")
from starlette.testclient import TestClient

from sightline.rating.server import Page, first_side, order
from sightline.serving.http import Allowance


@pytest.fixture
def store(tmp_path):
    return make_study(tmp_path / "study.sqlite")


@pytest.fixture
def page(store):
    return Page(store)


@pytest.fixture
def client(page):
    """A browser that knows neither token nor rater."""
    return lambda: TestClient(page.application(), base_url="http://127.0.0.1", follow_redirects=True)


@pytest.fixture
def rater(client, store):
    """A browser that came by the link and has begun."""

    def begin(name=""):
        browser = client()
        assert browser.get("/", params={"token": store.token}).status_code == 200
        assert browser.post("/join", json={"name": name}).status_code == 201
        return browser

    return begin


def test_the_link_lets_in_and_leaves_the_address(client, store):
    browser = client()
    answer = browser.get(f"/?token={store.token}", follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    assert "HttpOnly" in answer.headers["set-cookie"]
    assert "samesite=lax" in answer.headers["set-cookie"].lower()
    assert "Which map explains" in browser.get("/").text


PATHS = ["/", "/state", "/static/rate.js", "/picture/example-good", "/join", "/vote", "/leave"]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("token", [None, "wrong", ""])
def test_rating_page_without_the_token_does_not_open(client, store, path, token):
    browser = client()
    if token is not None:
        browser.cookies.set(f"study-{store.id}", token)
        assert browser.get("/", params={"token": token}).status_code == 403
    ask = browser.post if path in ("/join", "/vote", "/leave") else browser.get
    assert ask(path).status_code == 403
    assert store.raters() == {}


def test_token_in_other_case_is_rejected(client, store):
    assert client().get("/", params={"token": "é"}).status_code == 403
    assert client().get("/state", headers={"Cookie": f"study-{store.id}=é".encode()}).status_code == 403


@pytest.mark.parametrize("path", [*PATHS, "/none"])
def test_every_answer_has_the_headers(rater, path):
    answer = rater().get(path)
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"].startswith("private" if path.startswith("/picture") else "no-store")


def test_the_page_holds_no_script_of_its_own(rater):
    text = rater().get("/").text
    assert "style=" not in text
    assert text.count("<script") == 1
    assert "onclick" not in text


def test_a_vote_is_of_the_map_that_this_rater_saw_there(rater, store):
    browsers = [rater(name) for name in ("Anna", "Ben", "")]
    for number, browser in enumerate(browsers, start=1):
        state = browser.get("/state").json()
        assert [pair["pair"] for pair in state["pairs"]] == order(0, number, 6)
        for pair in state["pairs"]:
            names = store.pairs[pair["pair"]].names
            assert pair["first"] == names[first_side(0, number, pair["pair"])]
            assert {pair["first"], pair["second"]} == {names["a"], names["b"]}
            assert browser.post("/vote", json={"pair": pair["pair"], "choice": "second"}).json()["choice"] == "second"
    assert len(store.votes()) == 18
    for vote in store.votes():
        assert vote.first == first_side(0, vote.rater, vote.pair)
        assert vote.choice != vote.first
    assert [pair["choice"] for pair in browsers[0].get("/state").json()["pairs"]] == ["second"] * 6


def test_sides_and_orders_are_shuffled_by_rater_and_pair():
    sides = [[first_side(0, rater, pair) for pair in range(100)] for rater in range(20)]
    assert 900 < sum(side == "a" for row in sides for side in row) < 1100
    assert all(30 < row.count("a") < 70 for row in sides)
    assert len({tuple(row) for row in sides}) == 20
    assert len({tuple(order(0, rater, 100)) for rater in range(20)}) == 20
    assert sorted(order(0, 3, 100)) == list(range(100))
    assert order(1, 3, 100) != order(0, 3, 100) == order(0, 3, 100)


def test_a_rater_resumes_by_the_cookie_or_the_own_link_and_counts_once(rater, client, store):
    first = rater("Anna")
    first.post("/vote", json={"pair": 2, "choice": "same"})
    assert first.post("/join", json={"name": "Anna"}).json() == {"rater": "Anna"}  # a second click on Begin
    elsewhere = client()
    assert elsewhere.get(first.get("/state").json()["link"]).status_code == 200
    state = elsewhere.get("/state").json()
    assert state["rater"] == "Anna"
    assert [pair["choice"] for pair in state["pairs"] if pair["pair"] == 2] == ["same"]
    elsewhere.post("/vote", json={"pair": 2, "choice": "first"})
    assert len(store.votes()) == 1
    assert len(store.raters()) == 1


def test_a_name_is_taken_once_and_another_person_can_begin_here(rater, client, store):
    browser = rater("Anna")
    other = client()
    other.get("/", params={"token": store.token})
    assert other.post("/join", json={"name": " Anna "}).status_code == 409
    assert browser.post("/leave").status_code == 200
    assert browser.get("/state").json() == {"rater": None, "total": 6}
    assert browser.post("/vote", json={"pair": 0, "choice": "same"}).status_code == 403
    assert browser.post("/join", json={"name": "Ben"}).status_code == 201
    assert [r.name for r in store.raters().values()] == ["Anna", "Ben"]


@pytest.mark.parametrize("name", ["=1+1", "<b>", "a" * 41, "-x", 3, None, ["a"], "a\u0000b"])
def test_join_with_an_invalid_name_is_rejected(client, store, name):
    browser = client()
    browser.get("/", params={"token": store.token})
    assert browser.post("/join", json={"name": name}).status_code == 422
    assert store.raters() == {}


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400), (b"{", 400), (b"\xff\xfe", 400), (b"{'pair': 0}", 400),
        (b"[]", 422), (b"null", 422), (b"3", 422),
        (b'{"pair": 0}', 422), (b'{"choice": "first"}', 422),
        (b'{"pair": "0", "choice": "first"}', 422), (b'{"pair": true, "choice": "first"}', 422),
        (b'{"pair": 0.5, "choice": "first"}', 422), (b'{"pair": -1, "choice": "first"}', 422),
        (b'{"pair": 0, "choice": "a"}', 422), (b'{"pair": 0, "choice": null}', 422),
        (b'{"pair": 0, "choice": "first", "rater": 2}', 422),
        (b'{"pair": 6, "choice": "first"}', 404), (b'{"pair": 123456789012345678901234567890, "choice": "first"}', 404),
        (b'{"pair": 0, "choice": "first"' + b" " * 2000 + b"}", 413),
    ],
)  # fmt: skip
def test_invalid_votes_are_rejected_and_nothing_is_lost(rater, store, body, status):
    browser = rater()
    browser.post("/vote", json={"pair": 1, "choice": "same"})
    answer = browser.post("/vote", content=body, headers={"Content-Type": "application/json"})
    assert (answer.status_code, list(answer.json())) == (status, ["error"])
    assert [(vote.pair, vote.choice) for vote in store.votes()] == [(1, "same")]


def test_form_of_another_site_is_rejected(rater, store):
    body = json.dumps({"pair": 0, "choice": "first"})
    assert rater().post("/vote", content=body, headers={"Content-Type": "text/plain"}).status_code == 415
    assert store.votes() == []


def test_vote_with_the_cookie_of_another_rater_is_rejected(rater, client, store):
    rater("Anna")
    browser = client()
    browser.get("/", params={"token": store.token})
    for secret in ("1", "Anna", "", "' OR 1=1 --"):
        browser.cookies.set(f"rater-{store.id}", secret)
        assert browser.post("/vote", json={"pair": 0, "choice": "first"}).status_code == 403
    assert browser.get("/", params={"token": store.token, "rater": "Anna"}).status_code == 403
    assert store.votes() == []


def test_a_flood_is_rejected_and_what_came_before_stays(rater, store, page):
    browser, other = rater(), rater()
    answers = [browser.post("/vote", json={"pair": n % 6, "choice": "first"}).status_code for n in range(60)]
    assert answers[:20] == [200] * 20
    assert answers.count(429) > 20
    assert len(store.votes()) == 6
    assert other.post("/vote", json={"pair": 0, "choice": "same"}).status_code == 200  # others go on
    refused = browser.post("/vote", json={"pair": 0, "choice": "same"})
    assert refused.status_code == 200 or refused.headers["retry-after"] == "2"
    page.joining = Allowance(0, 0)
    browser.post("/leave")
    assert browser.post("/join", json={"name": ""}).status_code == 429
    assert len(store.raters()) == 2


def test_an_allowance_comes_back_with_time():
    now = [0.0]
    allowance = Allowance(2, 0.5, clock=lambda: now[0])
    assert [allowance.take() for _ in range(3)] == [True, True, False]
    now[0] = 2.0
    assert [allowance.take(), allowance.take()] == [True, False]
    now[0] = 1000.0
    assert [allowance.take() for _ in range(3)] == [True, True, False]


@pytest.mark.parametrize(
    "path",
    [
        "/static/../store.py", "/static/%2e%2e%2fstore.py", "/static/rate.html", "/static/", "//etc/passwd",
        "/picture/..%2f..%2fetc%2fpasswd", "/picture/study.sqlite",
    ],
)  # fmt: skip
def test_paths_outside_the_store_are_not_served(rater, path):
    assert rater().get(path).status_code == 404


def test_a_full_disk_acknowledges_nothing(rater, store, monkeypatch):
    browser = rater()

    def full(*_):
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(store, "vote", full)
    assert browser.post("/vote", json={"pair": 0, "choice": "first"}).status_code == 503
    monkeypatch.undo()
    assert browser.post("/vote", json={"pair": 0, "choice": "first"}).status_code == 200


@pytest.mark.parametrize("how", ["removed", "moved", "replaced"])
def test_a_file_that_is_gone_acknowledges_nothing(rater, store, tmp_path, how):
    browser = rater()
    file, kept = tmp_path / "study.sqlite", tmp_path / "kept.sqlite"
    assert browser.post("/vote", json={"pair": 0, "choice": "first"}).status_code == 200
    if how == "removed":
        file.unlink()
    else:
        file.rename(kept)
    if how == "replaced":
        make_study(file)
    answer = browser.post("/vote", json={"pair": 1, "choice": "first"})
    assert answer.status_code == 503
    assert "error" in answer.json()
    if how == "moved":
        kept.rename(file)
        assert browser.post("/vote", json={"pair": 1, "choice": "first"}).status_code == 200
        assert len(store.votes()) == 2


def test_http_answers_do_not_reveal_the_methods(rater):
    browser = rater()
    for path in ("/", "/state", "/static/rate.js"):
        assert "guided" not in browser.get(path).text
        assert "plain/" not in browser.get(path).text
