import stat
from typing import ClassVar

import pytest

from sightline import SightlineError
from sightline.serving.store_file import StoreFile, StoreUnavailableError, create_file


class Words(StoreFile):
    what: ClassVar[str] = "list"
    missing: ClassVar[str] = "make one"

    def _open(self):
        self._read("SELECT word FROM words")

    def add(self, word):
        with self._transaction() as connection:
            connection.execute("INSERT INTO words VALUES (?)", (word,))

    def all(self):
        return [word for (word,) in self._read("SELECT word FROM words")]


@pytest.fixture
def path(tmp_path):
    create_file(tmp_path / "words.sqlite", lambda connection: connection.execute("CREATE TABLE words (word TEXT)"))
    return tmp_path / "words.sqlite"


def test_rows_written_by_one_store_are_read_by_another(path):
    Words(path).add("one")
    assert Words(path).all() == ["one"]
    assert {stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()} == {0o600}


@pytest.mark.parametrize("replaced", [False, True])
def test_a_file_that_was_removed_or_replaced_is_an_error_and_never_a_silent_success(path, replaced):
    words = Words(path)
    if replaced:
        create_file(path, lambda connection: connection.execute("CREATE TABLE words (word TEXT)"))
    else:
        path.unlink()
    for use in (lambda: words.add("two"), words.all):
        with pytest.raises(StoreUnavailableError, match="cannot use the list"):
            use()


def test_the_error_says_what_is_wrong_with_the_file(path):
    with pytest.raises(SightlineError, match=r"there is no list at .*; make one"):
        Words(path.with_name("none.sqlite"))
    create_file(path, lambda connection: connection.execute("CREATE TABLE numbers (number INTEGER)"))
    with pytest.raises(SightlineError, match=r"is not a list, or it is damaged: .*no such table"):
        Words(path)


def test_a_file_that_breaks_off_while_it_is_made_leaves_nothing(tmp_path):
    def fill(connection):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        create_file(tmp_path / "words.sqlite", fill)
    assert list(tmp_path.iterdir()) == []
