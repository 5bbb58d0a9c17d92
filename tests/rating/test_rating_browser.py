import pytest

from browser import browser
from studies import make_study, serving

pytest.importorskip("uvicorn")

from sightline.rating.server import first_side, order
from sightline.rating.store import Store


def rated(count):
    return f"document.querySelector('#rate .rated').textContent === '{count}' && !saving"


@pytest.mark.slow
def test_a_rater_goes_through_the_study_in_a_real_browser(tmp_path):
    path = tmp_path / "study.sqlite"
    make_study(path, pairs=6).close()
    with serving(path) as (process, address, token), browser(tmp_path / "profile") as tab:
        tab.size(1200, 900)
        tab.open(f"{address}/?token={token}")
        tab.until("!document.getElementById('start').hidden")
        assert tab.value("location.href") == f"{address}/"  # the token is out of the address
        tab.until("[...document.querySelectorAll('.examples img')].every(i => i.complete && i.naturalWidth)")
        tab.click("#name")
        tab.type("Anna 1")  # digits in a name are no answers
        tab.click("#join button")
        tab.until("!document.getElementById('rate').hidden")

        tab.press("1")
        tab.until(rated(1))
        tab.press("ArrowRight")
        tab.until(rated(2))
        tab.press("0", repeat=True)  # a key that is held down is no further answer
        tab.press("ArrowDown")
        tab.until(rated(3))
        tab.click("[data-choice=first]")
        tab.until(rated(4))
        tab.press("ArrowUp")
        tab.until("document.querySelector('[data-choice=first]').getAttribute('aria-pressed') === 'true'")
        tab.click("[data-choice=same]")  # on second thoughts
        tab.until("state.pairs[3].choice === 'same' && place === 4 && !saving")

        # The next answer meets a server that is gone: the page says so and keeps the place.
        process.kill()
        process.wait()
        tab.press("2")
        tab.until("!document.getElementById('problem').hidden && !saving")
        assert "not saved" in tab.value("document.getElementById('problem').textContent")
        assert tab.value("place") == 4
        tab.said.clear()  # the refused connection

        with serving(path) as (_, address, token):  # another port: the cookies go there too
            tab.open(address)
            tab.until("!document.getElementById('known').hidden")
            assert tab.value("document.querySelector('#known .rated').textContent") == "4"
            tab.click("#resume")
            tab.until("!document.getElementById('rate').hidden")
            tab.size(390, 844)
            assert tab.value("document.documentElement.scrollWidth") == 390
            tab.click("[data-choice=second]")
            tab.until(rated(5))
            tab.click("[data-choice=same]")
            tab.until("!document.getElementById('thanks').hidden")
            assert tab.said == []  # no error, and nothing that the content policy refused

    store = Store(path)
    assert [rater.name for rater in store.raters().values()] == ["Anna 1"]
    meant = dict(zip(order(0, 1, 6), ["first", "second", "same", "same", "second", "same"]))
    said = {
        v.pair: v.choice if v.choice == "same" else "first" if v.choice == v.first else "second" for v in store.votes()
    }
    assert said == meant
    assert all(vote.first == first_side(0, 1, vote.pair) for vote in store.votes())
