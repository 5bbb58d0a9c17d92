import pytest

pytest.importorskip("uvicorn")
pytest.importorskip("cv2")
from sessions import Discs, serving

from browser import browser
from sightline.marking.app import FILE
from sightline.marking.store import Store

IDLE = "!waiting && !document.getElementById('mark').hidden"


def marked(count):
    return f"{IDLE} && state.marked === {count}"


def shown(tab):
    return tab.value("view.image")


@pytest.mark.slow
def test_a_person_marks_ten_images_refits_and_exports_in_a_real_browser(tmp_path):
    data, folder = Discs(14), tmp_path / "fixed"
    order = sorted(range(14), key=lambda i: -data.scores[i])
    with serving(folder, 14) as (process, address, token), browser(tmp_path / "profile") as tab:
        tab.size(1280, 860)
        tab.open(f"{address}/?token={token}")
        tab.until("!document.getElementById('start').hidden")
        assert tab.value("location.href") == f"{address}/"  # the token is out of the address
        tab.click("#name")
        tab.type("Anna 1")
        tab.click("#join button")
        tab.until(IDLE)
        assert shown(tab) == order[0]

        # By mouse: wrong place, a click on the object, next.
        tab.click("[data-judge=wrong]")
        tab.until(marked(1) + " && !mapShown")
        tab.click("#sheet", *data.centers[order[0]])
        tab.until(f"{IDLE} && view.object.mask")
        tab.click("#sheet", 0.05, 0.05, button="right")  # not this
        tab.until(f"{IDLE} && view.object.outside.length === 1")
        tab.click("#next")
        tab.until(f"{IDLE} && view.image === {order[1]}")

        # By keys alone: the cursor begins in the middle.
        tab.press("2")
        tab.until(marked(2))
        for _ in range(3):
            tab.press("ArrowLeft", shift=True)
        tab.press(" ")
        tab.until(f"{IDLE} && view.object.mask")
        tab.press("u")
        tab.until(f"{IDLE} && !view.object.mask && view.judgement === 'wrong'")
        tab.press("y")
        tab.until(f"{IDLE} && view.object.mask")
        tab.press("d")
        tab.press(" ")
        for _ in range(4):
            tab.press("ArrowDown")
        tab.press(" ")
        tab.until(f"{IDLE} && !gesture && view.version % 10000 === 0")
        tab.press("o")  # what must not matter: a box from the cursor
        tab.press(" ")
        for key in ("ArrowRight", "ArrowDown") * 3:
            tab.press(key)
        tab.press("Enter")
        tab.until(f"{IDLE} && view.avoid.mask")
        tab.press("n")
        tab.until(f"{IDLE} && view.image === {order[2]}")

        # Box and brush by mouse, with zoom.
        tab.press("+")
        tab.press("0")
        tab.press("b")
        tab.drag([tab.place("#sheet", 0.1, 0.1), tab.place("#sheet", 0.5, 0.5), tab.place("#sheet", 0.9, 0.9)])
        tab.until(f"{IDLE} && view.object.box !== null")
        tab.press("e")
        tab.drag([tab.place("#sheet", 0.05, 0.05), tab.place("#sheet", 0.1, 0.05)])
        tab.until(marked(3))
        tab.press("n")
        tab.until(f"{IDLE} && view.image === {order[3]}")

        # One key each: the suggestion, or a judgement.
        for number in range(3, 8):
            tab.press("a" if tab.value("view.suggested") else "1", repeat=False)
            tab.until(marked(number + 1) + f" && view.image === {order[number + 1]}")

        tab.press("u")  # the judgement or mask that was given last, although the page is on the next image
        tab.until(marked(7) + f" && view.image === {order[7]}")
        tab.press("y")
        tab.until(marked(8))
        tab.press("n")
        tab.until(f"{IDLE} && view.image === {order[8]}")

        # The next mark meets a server that is gone: the page says so, and nothing that was told as saved is lost.
        process.kill()
        process.wait()
        tab.press("3")
        tab.until("!waiting && !document.getElementById('problem').hidden")
        assert "Not saved" in tab.value("document.getElementById('problem').textContent")
        tab.said.clear()  # the refused connection

        with serving(folder, 14) as (_, address, token):  # another port: the cookies go there too
            tab.open(address)
            tab.until("!document.getElementById('known').hidden")
            assert tab.value("document.querySelector('#known .marked').textContent") == "8"
            tab.size(390, 844)
            tab.click("#resume")
            tab.until(IDLE)
            assert tab.value("document.documentElement.scrollWidth") == 390
            assert shown(tab) == order[8]

            # By touch: a tap on the object, then a stroke.
            tab.value("document.getElementById('stage').scrollIntoView()")
            tab.touch([tab.place("#sheet", *data.centers[order[8]])])
            tab.until(f"{IDLE} && view.object.mask")
            tab.click("[data-tool=brush]")
            tab.touch([tab.place("#sheet", 0.4, 0.4), tab.place("#sheet", 0.5, 0.5), tab.place("#sheet", 0.6, 0.5)])
            tab.until(marked(9))
            tab.click("#next")
            tab.until(f"{IDLE} && view.image === {order[9]}")
            tab.click("[data-judge=unclear]")
            tab.until(marked(10) + f" && view.image === {order[10]}")

            tab.size(1280, 860)
            tab.press("r")
            tab.until("!document.getElementById('results').hidden")
            tab.click("#refit")
            tab.until("!document.getElementById('found').hidden && !state.refit.running")
            assert "better" in tab.value("document.getElementById('found-title').textContent")
            tab.until("document.querySelector('#fragment h3') !== null")
            assert tab.value("document.querySelectorAll('#figures tr').length") == 2
            assert tab.value("!document.getElementById('curve').hidden")
            tab.size(390, 844)
            assert tab.value("document.querySelectorAll('#found .table').length") == 2
            assert tab.value(
                "[...document.querySelectorAll('#found .table')].every(e => e.scrollWidth <= e.clientWidth)"
            )
            tab.size(1280, 860)
            tab.click("#export")
            tab.until("!document.getElementById('exported').hidden")
            assert "model.txt" in tab.value("document.getElementById('files').textContent")
            tab.press("n")
            tab.until(IDLE)
            assert tab.said == []  # no error, and nothing that the content policy refused

    store = Store.open(folder / FILE, data.fingerprint, 14)
    marks = store.marks()
    assert sorted(marks) == sorted(order[:10])
    assert marks[order[0]].judgement == "wrong"
    for image in (order[0], order[8]):
        found, truth = marks[image].object, data.truth(image)
        assert (found & truth).sum() / (found | truth).sum() > 0.8
    assert marks[order[1]].avoid is not None
    assert [store.history(i)[0]["name"] for i in order[:10]] == ["Anna 1"] * 10
    assert (folder / "model.txt").read_text() == "refit 1 of 10 marks\n"
