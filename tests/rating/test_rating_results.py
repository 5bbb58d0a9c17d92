import csv
import io
import json

import numpy as np
import pytest
from rich.console import Console

from sightline.rating.results import fleiss_kappa, plurality, results, table, write
from studies import make_study


@pytest.mark.parametrize(
    ("a", "same", "b", "expected"),
    [
        (3, 1, 1, "a"), (1, 1, 3, "b"), (1, 3, 1, "same"), (5, 0, 0, "a"),
        (2, 1, 2, "same"),  # the maps tie
        (2, 2, 1, "same"), (1, 2, 2, "same"),  # a map ties with no difference
        (2, 2, 2, "same"),
        (3, 2, 2, "a"),  # a plurality that is no majority
    ],
)  # fmt: skip
def test_the_plurality_decides_and_a_tie_is_not_a_difference(a, same, b, expected):
    assert plurality({"a": a, "same": same, "b": b}) == expected


def test_kappa_equals_the_textbook_example():
    """Ten subjects, fourteen raters, five answers: the worked example that encyclopaedias print, kappa = 0.210."""
    counts = np.array([
        [0, 0, 0, 0, 14], [0, 2, 6, 4, 2], [0, 0, 3, 5, 6], [0, 3, 9, 2, 0], [2, 2, 8, 1, 1],
        [7, 7, 0, 0, 0], [3, 2, 6, 3, 0], [2, 5, 3, 2, 2], [6, 5, 2, 1, 0], [0, 2, 2, 3, 7],
    ])  # fmt: skip
    found = fleiss_kappa(counts)
    assert (found.pairs, found.equal) == (10, True)
    assert round(found.observed, 3) == 0.378
    assert round(found.expected, 3) == 0.213
    assert round(found.kappa, 3) == 0.210


def test_with_unequal_numbers_every_pair_counts_once_and_a_lone_vote_does_not():
    # Couples that agree: 1 of 1, 1 of 3, 3 of 6. The mix is 6 + 3 + 0 of 9 votes; the single vote is left out.
    found = fleiss_kappa(np.array([[2, 0, 0], [2, 1, 0], [3 - 1, 2, 0], [0, 0, 1]]))
    assert (found.pairs, found.equal) == (3, False)
    assert found.observed == pytest.approx((1 + 1 / 3 + 2 / 6) / 3)
    assert found.expected == pytest.approx((6 / 9) ** 2 + (3 / 9) ** 2)
    assert found.kappa == pytest.approx((found.observed - found.expected) / (1 - found.expected))


def test_kappa_without_variation_is_undefined():
    assert fleiss_kappa(np.array([[1, 0, 0], [0, 0, 0]])) is None
    assert fleiss_kappa(np.array([[5, 0, 0], [5, 0, 0]])).kappa is None  # everyone always says the same
    assert fleiss_kappa(np.array([[5, 0, 0], [0, 0, 5]])).kappa == 1


@pytest.fixture
def voted(tmp_path):
    """Four pairs: a wins the first 3 : 1 : 1, the second ties, b wins the third, and the fourth has four votes."""
    store = make_study(tmp_path / "study.sqlite", pairs=4)
    ballots = [["a", "a", "a", "same", "b"], ["a", "a", "b", "b", "same"], ["b"] * 5, ["a"] * 4]
    for rater in range(5):
        who = store.join(f"Rater {rater}" if rater else None)
        for pair, choices in enumerate(ballots):
            if rater < len(choices):
                store.vote(pair, who, choices[rater], "a" if rater % 2 else "b")
    return store


def test_pos_is_for_the_first_run_and_few_votes_leave_a_pair_open(voted):
    found = results(voted)
    assert [row.verdict for row in found.rows] == ["pos", "same", "neg", None]
    assert found.shares == {"pos": 1 / 3, "same": 1 / 3, "neg": 1 / 3}
    assert (found.decided, found.votes) == (3, 19)
    assert (found.a, found.b) == ("guided", "plain")
    assert found.raters == {"#1": 4, "Rater 1": 4, "Rater 2": 4, "Rater 3": 4, "Rater 4": 3}
    assert results(voted, quorum=4).shares["pos"] == 2 / 4
    # Votes for a map by raters who saw a first (1 and 3) and b first (0, 2 and 4).
    for_first = {1: "aaba", 3: "bba", 0: "aaba", 2: "abba", 4: "bb"}
    hits = sum(s.count("a" if r % 2 else "b") for r, s in for_first.items())
    assert found.shown_first == pytest.approx(hits / sum(map(len, for_first.values())))


def test_the_table_names_the_runs(voted):
    console = Console(width=160, file=io.StringIO())
    console.print(table(results(voted)))
    text = console.file.getvalue()
    for words in (
        "guided is better: 1 pairs",
        "plain is better: 1 pairs",
        "1 have fewer than 5 votes",
        "19  of 5 raters",
    ):
        assert words in text


def test_an_empty_study_has_a_table_too(tmp_path):
    store = make_study(tmp_path / "study.sqlite")
    found = results(store)
    assert (found.shares, found.agreement, found.shown_first) == (None, None, None)
    console = Console(width=120, file=io.StringIO())
    console.print(table(found))
    assert "0 of 6" in console.file.getvalue()


def test_votes_and_summary_are_written(voted, tmp_path):
    votes, summary = write(voted, results(voted), tmp_path)
    rows = list(csv.DictReader(votes.open()))
    assert len(rows) == 19
    assert rows[0] | {"at": ""} == {
        "pair": "0", "index": "0", "label": "class 0", "rater": "#1", "source": "page", "choice": "a",
        "shown_first": "b", "at": "",
    }  # fmt: skip
    whole = json.loads(summary.read_text())
    assert whole["shares"]["pos"] == pytest.approx(1 / 3)
    assert whole["agreement"]["equal"] is False
    assert voted.token not in summary.read_text() + votes.read_text()
