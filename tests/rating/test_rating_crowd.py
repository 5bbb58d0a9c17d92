import csv

import pytest

from sightline import SightlineError
from sightline.rating.crowd import export_batch, import_batch
from studies import make_study

COLUMNS = ("HITId", "WorkerId", "AssignmentStatus", "Input.pair", "Input.first", "Input.second", "Answer.choice")


@pytest.fixture
def store(tmp_path):
    return make_study(tmp_path / "study.sqlite", pairs=20)


def answers(path, batch, workers=("W1",), choice="first", status="Approved", **changes):
    """The batch as the service gives it back: a row a worker and pair."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        for row in csv.DictReader(batch.open()):
            for worker in workers:
                given = {f"Input.{key}": row[key] for key in ("pair", "first", "second")}
                work = {"HITId": "H", "WorkerId": worker, "AssignmentStatus": status, "Answer.choice": choice}
                writer.writerow(work | given | changes)
    return path


def test_batch_has_one_row_per_pair_and_its_images(store, tmp_path):
    batch = export_batch(store, tmp_path / "batch")
    rows = list(csv.DictReader(batch.open()))
    assert [int(row["pair"]) for row in rows] == list(range(20))
    assert rows[3]["label"] == "class 3"
    for row in rows:
        names = store.pairs[int(row["pair"])].names
        assert (batch.parent / row["image"]).read_bytes() == store.picture(names["image"])
        assert {row["first"], row["second"]} == {f"images/{names[side]}.jpg" for side in "ab"}
    first_is_a = [row["first"] == f"images/{store.pairs[i].names['a']}.jpg" for i, row in enumerate(rows)]
    assert 4 <= sum(first_is_a) <= 16  # sides are shuffled
    assert export_batch(store, tmp_path / "again").read_text() == batch.read_text()
    web = export_batch(store, tmp_path / "web", "https://example.org/p/")
    assert next(csv.DictReader(web.open()))["image"].startswith("https://example.org/p/")


@pytest.mark.parametrize("url", [None, "https://example.org/p"])
def test_answers_come_back_to_the_map_that_was_shown(store, tmp_path, url):
    batch = export_batch(store, tmp_path / "batch", url)
    assert import_batch(store, answers(tmp_path / "a.csv", batch, ["W1", "W2"], "second")) == (40, 0)
    for vote in store.votes():
        first = next(row for row in csv.DictReader(batch.open()) if int(row["pair"]) == vote.pair)["first"]
        shown_first = "a" if store.pairs[vote.pair].names["a"] in first else "b"
        assert (vote.first, vote.choice) == (shown_first, "b" if shown_first == "a" else "a")
    assert {r.title for r in store.raters().values()} == {"W1 (crowd)", "W2 (crowd)"}


def test_votes_imported_twice_count_once(store, tmp_path):
    batch = export_batch(store, tmp_path / "batch")
    assert import_batch(store, answers(tmp_path / "a.csv", batch, choice="same")) == (20, 0)
    assert import_batch(store, answers(tmp_path / "a.csv", batch, choice="same")) == (0, 20)
    # The first word stays, also within a file.
    assert import_batch(store, answers(tmp_path / "b.csv", batch, ["W1", "W3", "W3"], "first")) == (20, 40)
    assert {v.choice for v in store.votes() if v.rater == 1} == {"same"}
    assert len(store.votes()) == 40


def test_rejected_work_is_left_out(store, tmp_path):
    batch = export_batch(store, tmp_path / "batch")
    assert import_batch(store, answers(tmp_path / "a.csv", batch, status="Rejected")) == (0, 0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"Answer.choice": "left"}, "Answer.choice is 'left'"),
        ({"Input.pair": "20"}, "Input.pair is '20'"),
        ({"Input.pair": "-1"}, "Input.pair is '-1'"),
        ({"Input.first": "images/other.jpg"}, "not the maps of pair"),
        ({"WorkerId": ""}, "WorkerId is ''"),
        ({"WorkerId": "=HYPERLINK(1)"}, "WorkerId is"),
    ],
)
def test_import_with_one_wrong_row_imports_nothing(store, tmp_path, changes, message):
    batch = export_batch(store, tmp_path / "batch")
    path = answers(tmp_path / "a.csv", batch)
    wrong = answers(tmp_path / "b.csv", batch, **changes).read_text().splitlines()[-1]
    path.write_text(path.read_text() + wrong + "\n")
    with pytest.raises(SightlineError, match=r"row 22: .*nothing was imported") as error:
        import_batch(store, path)
    assert message in str(error.value)
    assert store.votes() == []


def test_a_batch_of_another_study_is_rejected(store, tmp_path):
    batch = export_batch(make_study(tmp_path / "other.sqlite", pairs=20), tmp_path / "batch")
    with pytest.raises(SightlineError, match="not the maps of pair 0 of this study"):
        import_batch(store, answers(tmp_path / "a.csv", batch))


def test_a_file_without_the_columns_is_named(store, tmp_path):
    (tmp_path / "a.csv").write_text("pair,choice\n0,first\n")
    with pytest.raises(SightlineError, match=r"'WorkerId' is missing"):
        import_batch(store, tmp_path / "a.csv")
