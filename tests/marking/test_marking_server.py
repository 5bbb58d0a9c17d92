import json
import sqlite3
import threading
import time

import numpy as np
import pytest
from sessions import HEIGHT, WIDTH, Discs, MeanColors, export

pytest.importorskip("starlette")
pytest.importorskip("cv2")
from PIL import Image
from starlette.testclient import TestClient

from sightline import SightlineError
from sightline.marking.app import Page
from sightline.marking.segmenting import Segmenting
from sightline.marking.store import Store


@pytest.fixture
def data():
    return Discs(12)


@pytest.fixture
def store(tmp_path, data):
    return Store.open(tmp_path / "fixed" / "marks.sqlite", data.fingerprint, 12)


@pytest.fixture
def page(store, data, tmp_path):
    return Page(store, data, MeanColors(data), export, tmp_path / "fixed", Segmenting())


@pytest.fixture
def client(page):
    """A browser that knows neither token nor person."""
    return lambda: TestClient(page.application(), base_url="http://127.0.0.1", follow_redirects=True)


@pytest.fixture
def person(client, store):
    """A browser that came by the link and has begun."""

    def begin(name=""):
        browser = client()
        assert browser.get("/", params={"token": store.token}).status_code == 200
        assert browser.post("/join", json={"name": name}).status_code == 201
        return browser

    return begin


def mark(browser, image, kind, **rest):
    return browser.post("/mark", json={"image": image, "action": {"kind": kind, **rest}})


def click(browser, data, image, layer="object"):
    x, y = data.centers[image]
    return mark(browser, image, "click", layer=layer, x=x, y=y, inside=True)


def overlap(mask, truth):
    return (mask & truth).sum() / (mask | truth).sum()


def test_the_images_that_depend_most_on_the_rest_come_first_and_two_people_see_different_ones(person, data):
    anna, ben = person("Anna"), person("Ben")
    expected = sorted(range(12), key=lambda i: -data.scores[i])
    first = anna.post("/next", json={"image": None}).json()
    assert (first["image"], first["rank"], first["label"]) == (expected[0], 1, data.labels[expected[0]])
    assert ben.post("/next", json={"image": None}).json()["image"] == expected[1]
    mark(anna, expected[0], "judge", judgement="right")
    assert anna.post("/next", json={"image": expected[0]}).json()["image"] == expected[2]
    assert ben.post("/next", json={"image": expected[1]}).json()["image"] == expected[3]  # skipped, not lost
    assert anna.post("/next", json={"image": expected[2]}).json()["image"] == expected[4]


def test_a_click_finds_the_object_and_undo_takes_it_back(person, data, store):
    browser = person()
    answer = click(browser, data, 3).json()
    assert answer["object"]["mask"]
    assert overlap(store.drawing(3).object.mask, data.truth(3)) > 0.9
    png = browser.get("/masks/3").content
    before = answer["version"]
    assert mark(browser, 3, "judge", judgement="wrong").json()["judgement"] == "wrong"
    undone = browser.post("/undo", json={"image": 3}).json()
    assert (undone["done"], undone["judgement"], undone["object"]["mask"]) == ("judge", None, True)
    assert undone["version"] != before
    undone = browser.post("/undo", json={"image": 3}).json()
    assert (undone["done"], undone["object"]["mask"], undone["undo"]) == ("click", False, False)
    assert browser.get("/masks/3").content != png
    assert browser.post("/undo", json={"image": 3}).json()["done"] is None
    assert store.marks() == {}
    redone = [browser.post("/redo", json={"image": 3}).json() for _ in range(3)]
    assert [answer["done"] for answer in redone] == ["click", "judge", None]
    assert browser.get("/masks/3").content == png
    assert [a["kind"] for a in browser.get("/history/3").json()["actions"]] == ["click", "judge"]


def test_after_an_undo_a_new_action_ends_the_redo_and_the_history_keeps_all(person, store):
    browser = person("Anna")
    for judgement in ("right", "wrong"):
        mark(browser, 0, "judge", judgement=judgement)
    browser.post("/undo", json={"image": 0})
    mark(browser, 0, "judge", judgement="unclear")
    assert browser.post("/redo", json={"image": 0}).json()["done"] is None
    assert store.drawing(0).judgement == "unclear"
    assert [(a["undone"], a["name"]) for a in store.history(0)] == [(0, "Anna"), (1, "Anna"), (0, "Anna")]


def test_clicks_boxes_strokes_and_erasing_change_the_mask(person, data, store):
    browser = person()
    mark(browser, 2, "box", layer="object", x0=0.2, y0=0.1, x1=0.85, y1=0.9)
    assert overlap(store.drawing(2).object.mask, data.truth(2)) > 0.9
    assert mark(browser, 2, "click", layer="object", x=0.05, y=0.9, inside=False).status_code == 200
    assert not store.drawing(2).object.mask[int(0.9 * HEIGHT), int(0.05 * WIDTH)]
    mark(browser, 2, "stroke", layer="object", path=[[0.02, 0.02], [0.1, 0.02]], radius=0.02, erase=False)
    assert store.drawing(2).object.mask[2, 8]
    click(browser, data, 2)  # the outline is found again; what was painted stays
    assert store.drawing(2).object.mask[2, 8]
    mark(browser, 2, "stroke", layer="object", path=[[0.02, 0.02]], radius=0.25, erase=True)
    assert not store.drawing(2).object.mask[2, 8]
    assert mark(browser, 2, "clear", layer="object").json()["object"]["mask"] is False


def test_regions_to_avoid_are_a_separate_layer(person, store):
    browser = person()
    mark(browser, 5, "box", layer="avoid", x0=0.0, y0=0.0, x1=0.25, y1=0.25)
    avoided = store.marks()[5].avoid
    expected = np.zeros((HEIGHT, WIDTH), bool)
    expected[: HEIGHT // 4, : WIDTH // 4] = True
    assert (avoided == expected).all()  # the box itself
    assert store.marks()[5].object is None
    assert browser.get("/state").json()["avoided"] == 1


def test_a_suggestion_is_accepted_as_it_is_and_corrected_by_clicks(person, data, store):
    browser = person()
    assert browser.get("/open/4").json()["suggested"]
    assert mark(browser, 4, "accept").json()["suggested"] is False
    assert (store.marks()[4].object == data.truth(4)).all()
    assert mark(browser, 4, "click", layer="object", x=0.02, y=0.02, inside=False).status_code == 200
    assert overlap(store.marks()[4].object, data.truth(4)) > 0.9
    assert not browser.get("/open/3").json()["suggested"]
    assert mark(browser, 3, "accept").status_code == 422


def test_refits_are_kept_chosen_and_undone_and_the_result_is_exported(person, page, data, store, tmp_path):
    browser = person()
    refused = browser.post("/refit", json={})
    assert (refused.status_code, "no marks yet" in refused.json()["error"]) == (422, True)
    click(browser, data, 0)
    assert browser.post("/refit", json={}).status_code == 202
    page.refitting.wait()
    assert "of one class" in browser.get("/state").json()["refit"]["error"]
    for image in (1, 2, 3):
        click(browser, data, image)
    assert browser.post("/refit", json={}).status_code == 202
    page.refitting.wait()
    state = browser.get("/state").json()
    (refit,) = state["refits"]
    assert (refit["number"], refit["marked"], state["refit"]["error"]) == (1, 4, None)
    assert refit["figures"][0]["after"] == 1.0
    assert refit["figures"][0]["before"] < 1.0
    assert state["chosen"] == 1  # it helped
    told = browser.post("/export", json={}).json()
    assert sorted(told["files"]) == sorted(
        [*(f"masks/{data.names[i][:-4]}.png" for i in range(4)), "marks.json", "model.txt"]
    )
    written = np.asarray(Image.open(tmp_path / "fixed" / "masks" / f"{data.names[2][:-4]}.png"))
    assert set(np.unique(written)) == {0, 255}
    assert overlap(written > 0, data.truth(2)) > 0.9
    assert (tmp_path / "fixed/model.txt").read_text() == "refit 1 of 4 marks\n"
    assert browser.post("/choose", json={"refit": None}).json()["chosen"] is None
    browser.post("/undo", json={"image": 3})
    told = browser.post("/export", json={}).json()
    assert (tmp_path / "fixed/model.txt").read_text() == "refit None of 3 marks\n"
    assert not (tmp_path / "fixed" / "masks" / f"{data.names[3][:-4]}.png").exists()
    assert browser.post("/choose", json={"refit": 2}).status_code == 422
    assert json.loads((tmp_path / "fixed/marks.json").read_text())[data.names[2]]["object"] is True


def test_a_session_resumes_where_it_ended_and_rejects_other_images(person, page, data, store):
    browser = person("Anna")
    click(browser, data, 0)
    mark(browser, 1, "judge", judgement="unclear")
    link = browser.get("/state").json()["link"]
    again = Store.open(store.path, data.fingerprint, 12)
    assert sorted(again.marks()) == [0, 1]
    other = TestClient(Page(again, data, page.refitting.refit, export, page.output, Segmenting()).application())
    assert other.get(link, follow_redirects=True).status_code == 200
    assert other.get("/state").json()["person"] == "Anna"
    with pytest.raises(SightlineError, match="marks of other images or another model"):
        Store.open(store.path, "another", 12)


READ = ["/", "/state", "/static/fix.js", "/image/0", "/map/0", "/masks/0", "/open/0", "/history/0"]
WRITE = ["/join", "/leave", "/next", "/mark", "/undo", "/redo", "/refit", "/choose", "/export"]


@pytest.mark.parametrize("token", [None, "wrong", "é"])
def test_marking_page_without_the_token_does_not_open(client, store, token):
    browser = client()
    headers = {} if token is None else {"Cookie": f"session-{store.id}={token}".encode()}
    for path in READ:
        assert browser.get(path, headers=headers).status_code == 403, path
    for path in WRITE:
        assert browser.post(path, json={}, headers=headers).status_code == 403, path
    assert not store.touched()


def test_requests_before_the_start_write_nothing(client, store, tmp_path):
    browser = client()
    browser.get("/", params={"token": store.token})
    for path in WRITE[2:]:
        assert browser.post(path, json={"image": 0}).status_code == 403, path
    assert not store.touched()
    assert not (tmp_path / "fixed/marks.json").exists()


@pytest.mark.parametrize("path", [*READ, "/none"])
def test_every_answer_has_the_headers(person, path):
    answer = person().get(path)
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert "unsafe" not in answer.headers["content-security-policy"]
    assert answer.headers["referrer-policy"] == "no-referrer"


def test_the_page_loads_nothing_from_elsewhere(person):
    browser = person()
    text = browser.get("/").text
    for name in ("fix.css", "fix.js"):
        text += browser.get(f"/static/{name}").text
    assert "https://" not in text
    assert text.replace("http://www.w3.org/2000/svg", "").count("http://") == 0
    assert "style=" not in browser.get("/").text
    assert "onclick" not in text


GOOD = {"image": 0, "action": {"kind": "click", "layer": "object", "x": 0.5, "y": 0.5, "inside": True}}
STROKE = {"kind": "stroke", "layer": "object", "path": [[0.1, 0.1]], "radius": 0.05, "erase": False}
BOX = {"kind": "box", "layer": "object", "x0": 0.1, "y0": 0.1, "x1": 0.5, "y1": 0.5}
BAD_VALUES = [
    -0.1, 1.1, "0.5", None, True, [0.5], {}, 1e300, -1e-9,
]  # fmt: skip


def forged():
    """Bodies that are no action: broken JSON, wrong types, values out of range, unknown keys and names."""
    raw = [b"", b"{", b"\xff\xfe", b"[]", b"null", b"3", b"'x'", b'"mark"', b"{}", b"[[[[[[", b'{"image": 0}', b"[1]",
           json.dumps(GOOD).replace("0.5", "NaN").encode(), json.dumps(GOOD).replace("0.5", "Infinity").encode(),
           json.dumps(GOOD).replace("0.5", "1e999").encode()]  # fmt: skip
    bodies = []
    for image in (-1, 12, 99, 10**30, "0", None, True, 0.5, [0]):
        bodies.append({**GOOD, "image": image})
    for action, keys in ((GOOD["action"], ("x", "y")), (BOX, ("x0", "y1")), (STROKE, ("radius",))):
        for key in keys:
            bodies += [{"image": 0, "action": {**action, key: value}} for value in BAD_VALUES]
    for action in (GOOD["action"], BOX, STROKE):
        bodies += [{"image": 0, "action": {k: v for k, v in action.items() if k != key}} for key in action]
        bodies += [{"image": 0, "action": {**action, "person": 2}}]
        bodies += [{"image": 0, "action": {**action, "layer": layer}} for layer in ("", "masks", None, 1, "object ")]
    for path in (
        [],
        [[]],
        [[0.1]],
        [[0.1, 0.1, 0.1]],
        [0.1, 0.1],
        "path",
        None,
        [[0.1, 2]],
        [[0.1, 0.1]] * 2001,
        [[None, 0.1]],
    ):
        bodies.append({"image": 0, "action": {**STROKE, "path": path}})
    bodies += [{"image": 0, "action": {**STROKE, "radius": 0}}, {"image": 0, "action": {**STROKE, "erase": 1}}]
    bodies += [{"image": 0, "action": {**BOX, "x1": 0.1}}, {"image": 0, "action": {**BOX, "y0": 0.9}}]
    for judgement in ("", "good", None, 1, ["right"], "RIGHT"):
        bodies.append({"image": 0, "action": {"kind": "judge", "judgement": judgement}})
    bodies += [{"image": 0, "action": {"kind": kind}} for kind in ("", "drop", None, 1, "judge", "click", "clear")]
    bodies.append(
        {"image": 0, "action": {"kind": "click", "layer": "object", "x": 0.5, "y": 0.5, "inside": False}}
    )  # no object yet
    bodies.append({**GOOD, "undone": 1})
    return raw + [json.dumps(body).encode() for body in bodies]


def test_more_than_a_hundred_forged_or_malformed_requests_are_rejected_and_nothing_is_lost(person, page, store):
    browser = person()
    mark(browser, 1, "judge", judgement="right")
    headers = {"Content-Type": "application/json"}
    bodies = forged()
    assert len(bodies) > 100
    for body in bodies:
        page.marking.clear()
        answer = browser.post("/mark", content=body, headers=headers)
        assert answer.status_code in (400, 404, 413, 422), (body[:200], answer.status_code)
        assert list(answer.json()) == ["error"]
    assert store.touched() == {1}
    assert browser.post("/mark", content=json.dumps(GOOD), headers={"Content-Type": "text/plain"}).status_code == 415
    assert browser.post("/mark", content=b" " * 200_000, headers=headers).status_code == 413
    for path in ("/undo", "/redo", "/next", "/choose"):
        for body in (
            b"",
            b"{",
            b'{"image": -1, "refit": -1}',
            b'{"image": "0"}',
            b'{"image": 0, "refit": 0, "more": 1}',
        ):
            assert browser.post(path, content=body, headers=headers).status_code in (400, 422), (path, body)
    for path in ("/refit", "/export"):
        assert browser.post(path, content=b"{}", headers={"Content-Type": "text/plain"}).status_code == 415
        assert browser.post(path, json={"refit": 1}).status_code == 422
    for path in ("/image/12", "/image/-1", "/image/x", "/image/..%2f..%2fetc", "/map/99999999999999999999999", "/masks/1.5",
                 "/static/../app.py", "/static/fix.html", "/open/12"):  # fmt: skip
        assert browser.get(path).status_code == 404, path
    assert browser.post("/choose", json={"refit": 10**30}).status_code == 404
    assert store.touched() == {1}
    assert browser.post("/mark", json=GOOD).status_code == 200


def test_a_flood_is_rejected_and_others_continue(person):
    browser, other = person(), person()
    codes = [mark(browser, 0, "judge", judgement="right").status_code for _ in range(90)]
    assert codes[:60] == [200] * 60
    assert 429 in codes
    assert mark(other, 0, "judge", judgement="wrong").status_code == 200


def test_a_lost_file_acknowledges_nothing(person, store, data):
    browser = person()
    store.path.unlink()
    for path, body in (("/mark", GOOD), ("/undo", {"image": 0}), ("/refit", {}), ("/next", {"image": None})):
        assert browser.post(path, json=body).status_code == 503, path
    assert browser.get("/state").status_code == 503


def test_a_full_disk_acknowledges_nothing(person, store, monkeypatch):
    browser = person()

    def full(*_):
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(store, "add", full)
    assert browser.post("/mark", json=GOOD).status_code == 503
    monkeypatch.undo()
    assert browser.post("/mark", json=GOOD).status_code == 200


def test_a_refit_reports_its_progress_and_a_second_one_waits_its_turn(person, page, data):
    browser = person()
    for image in range(4):
        mark(browser, image, "accept")
        click(browser, data, image)
    gate = threading.Event()
    real = page.refitting.refit

    def slow(marks, number, progress):
        progress("Half way", 0.5)
        gate.wait(120)
        return real(marks, number, progress)

    page.refitting.refit = slow
    browser.post("/refit", json={})
    end = time.monotonic() + 120
    while browser.get("/state").json()["refit"]["text"] != "Half way":
        assert time.monotonic() < end
    assert browser.post("/refit", json={}).status_code == 409
    assert mark(browser, 6, "judge", judgement="right").status_code == 200  # marking goes on meanwhile
    gate.set()
    page.refitting.wait()
    assert [refit["marked"] for refit in browser.get("/state").json()["refits"]] == [4]


def test_failed_refit_is_reported_and_keeps_the_marks(person, page, data, store, capsys):
    def broken(marks, number, progress):
        raise RuntimeError("no such layer")

    page.refitting.refit = broken
    browser = person()
    click(browser, data, 0)
    browser.post("/refit", json={})
    page.refitting.wait()
    assert "RuntimeError: no such layer" in browser.get("/state").json()["refit"]["error"]
    assert "Traceback" in capsys.readouterr().err
    assert list(store.marks()) == [0]
