import sqlite3
import stat

import pytest

from sightline import SightlineError
from sightline.rating.store import Store
from sightline.serving.store_file import NameTakenError
from studies import make_study


def test_a_vote_is_kept_and_a_second_one_replaces_it(tmp_path):
    store = make_study(tmp_path / "study.sqlite")
    anna, ben = store.join("Anna"), store.join(None)
    store.vote(3, anna, "a", "b")
    store.vote(3, ben, "same", "a")
    store.vote(3, anna, "b", "b")
    store.close()
    again = Store(tmp_path / "study.sqlite")
    assert [(v.pair, v.rater, v.choice) for v in again.votes()] == [(3, 1, "b"), (3, 2, "same")]
    assert [v.choice for v in again.votes(again.rater(anna.secret))] == ["b"]


def test_the_file_waits_for_the_disk_and_is_the_owners_alone(tmp_path):
    store = make_study(tmp_path / "study.sqlite")
    assert store._connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert store._connection.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
    store.join(None)
    assert {stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()} == {0o600}


def test_names_are_taken_once_and_secrets_open_one_rater_only(tmp_path):
    store = make_study(tmp_path / "study.sqlite")
    anna = store.join("Anna")
    with pytest.raises(NameTakenError):
        store.join("Anna")
    assert store.join(None).title == "#2"
    assert store.rater(anna.secret) == anna
    assert store.rater("") is None
    assert store.rater("Anna") is None


def test_the_database_itself_rejects_what_is_not_a_vote(tmp_path):
    store = make_study(tmp_path / "study.sqlite")
    anna = store.join(None)
    for pair, choice, first in ((99, "a", "a"), (0, "first", "a"), (0, "a", "same")):
        with pytest.raises(sqlite3.IntegrityError):
            store.vote(pair, anna, choice, first)
    assert store.votes() == []


def test_image_names_do_not_reveal_the_method(tmp_path):
    one, other = make_study(tmp_path / "one.sqlite"), make_study(tmp_path / "other.sqlite")
    names = [[name for pair in s.pairs.values() for name in pair.names.values()] for s in (one, other)]
    assert len(set(names[0] + names[1])) == 2 * 6 * 3
    assert one.token != other.token


def test_a_study_that_breaks_off_while_it_is_made_leaves_nothing(tmp_path):
    def broken():
        raise KeyboardInterrupt
        yield

    with pytest.raises(KeyboardInterrupt):
        Store.create(tmp_path / "study.sqlite", {}, broken(), {})
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_a_study_is_named(tmp_path):
    with pytest.raises(SightlineError, match="no study at"):
        Store(tmp_path / "study.sqlite")
    (tmp_path / "study.sqlite").write_text("not a database, whatever it is called " * 50)
    with pytest.raises(SightlineError, match="is not a study"):
        Store(tmp_path / "study.sqlite")
