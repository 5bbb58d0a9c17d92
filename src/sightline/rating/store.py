"""A study in one SQLite file: the pairs with their images, the raters, the votes."""

import json
import secrets
import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from sightline.serving.store_file import NameTakenError, StoreFile, create_file, now

Choice = Literal["a", "b", "same"]
Side = Literal["a", "b"]
Part = Literal["image", "a", "b"]
Source = Literal["page", "crowd"]

SCHEMA = """
CREATE TABLE study (id TEXT NOT NULL, token TEXT NOT NULL, facts TEXT NOT NULL);
CREATE TABLE pairs (pair INTEGER PRIMARY KEY, sample INTEGER NOT NULL UNIQUE, label TEXT NOT NULL);
CREATE TABLE pictures (
    name TEXT PRIMARY KEY,
    pair INTEGER REFERENCES pairs,
    part TEXT NOT NULL,
    jpeg BLOB NOT NULL,
    UNIQUE (pair, part)
);
CREATE TABLE raters (
    rater INTEGER PRIMARY KEY,
    source TEXT NOT NULL CHECK (source IN ('page', 'crowd')),
    name TEXT,
    secret TEXT UNIQUE,
    UNIQUE (source, name)
);
CREATE TABLE votes (
    pair INTEGER NOT NULL REFERENCES pairs,
    rater INTEGER NOT NULL REFERENCES raters,
    choice TEXT NOT NULL CHECK (choice IN ('a', 'b', 'same')),
    first TEXT NOT NULL CHECK (first IN ('a', 'b')),
    at TEXT NOT NULL,
    PRIMARY KEY (pair, rater)
);
"""


@dataclass(frozen=True)
class Drawn:
    """A new pair.

    Attributes:
        index: the image's place in its split.
        label: the name of its class.
        pictures: the image and both maps over it, as JPEG files.
    """

    index: int
    label: str
    pictures: Mapping[Part, bytes]


@dataclass(frozen=True)
class Pair:
    """A stored pair.

    Attributes:
        pair: its number, from 0.
        index: the image's place in its split.
        label: the name of its class.
        names: what its images are called; drawn at random, so a name does not tell whose map it is.
    """

    pair: int
    index: int
    label: str
    names: Mapping[Part, str]


@dataclass(frozen=True)
class Rater:
    """A person who votes.

    Attributes:
        rater: a number, from 1.
        source: "page", or "crowd" for votes that were imported.
        name: as given; None = none was.
        secret: what the rater's own link carries; None for imported ones.
    """

    rater: int
    source: Source
    name: str | None
    secret: str | None

    @property
    def title(self) -> str:
        """What tables call the rater; no two are called the same."""
        name = self.name or f"#{self.rater}"
        return name if self.source == "page" else f"{name} (crowd)"


@dataclass(frozen=True)
class Vote:
    """One rater's word on one pair.

    Attributes:
        pair: the pair's number.
        rater: the rater's number.
        choice: whose map is better, or "same".
        first: whose map the rater saw first.
        at: when, in UTC, as ISO 8601.
    """

    pair: int
    rater: int
    choice: Choice
    first: Side
    at: str


class Store(StoreFile):
    """A study's file, open.

    Attributes:
        id: a few letters that tell one study from another.
        token: what every rater's link carries.
        facts: what is compared, and what the pairs were drawn from.
        pairs: the pairs by number.
    """

    what: ClassVar[str] = "study"
    missing: ClassVar[str] = "name the runs that it shall compare"

    def _open(self) -> None:
        ((self.id, self.token, facts),) = self._read("SELECT id, token, facts FROM study")
        self.facts: dict[str, Any] = json.loads(facts)
        self.pairs = {pair.pair: pair for pair in self._read_pairs()}

    @classmethod
    def create(
        cls, path: Path, facts: Mapping[str, Any], pairs: Iterable[Drawn], examples: Mapping[str, bytes]
    ) -> Self:
        """Make a study; the file appears when it is whole.

        Args:
            path: the file.
            facts: what is compared.
            pairs: in the order of their numbers.
            examples: JPEG files that the instructions show, by name.
        """
        create_file(path, partial(_fill, facts=facts, pairs=pairs, examples=examples))
        return cls(path)

    def picture(self, name: str) -> bytes | None:
        """Return a JPEG file by its name; None if no file has this name."""
        rows = self._read("SELECT jpeg FROM pictures WHERE name = ?", name)
        return rows[0][0] if rows else None

    def join(self, name: str | None) -> Rater:
        """Let a rater in, with a new secret.

        Raises:
            NameTakenError: another rater of the page has that name.
        """
        secret = secrets.token_urlsafe(12)
        try:
            with self._transaction():
                row = ("page", name, secret)
                cursor = self._connection.execute("INSERT INTO raters (source, name, secret) VALUES (?, ?, ?)", row)
        except sqlite3.IntegrityError as error:
            raise NameTakenError(f"the name {name!r} is taken") from error
        return Rater(int(cursor.lastrowid or 0), "page", name, secret)

    def rater(self, secret: str) -> Rater | None:
        """Return the rater of a secret; None if there is none."""
        rows = self._read("SELECT rater, source, name, secret FROM raters WHERE secret = ?", secret)
        return Rater(*rows[0]) if rows else None

    def raters(self) -> dict[int, Rater]:
        """All raters by number."""
        return {row[0]: Rater(*row) for row in self._read("SELECT rater, source, name, secret FROM raters")}

    def vote(self, pair: int, rater: Rater, choice: Choice, first: Side) -> None:
        """Keep a vote; the same rater's earlier one on that pair is replaced."""
        with self._transaction():
            self._connection.execute(
                "INSERT INTO votes VALUES (?, ?, ?, ?, ?) ON CONFLICT (pair, rater) DO UPDATE SET "
                "choice = excluded.choice, first = excluded.first, at = excluded.at",
                (pair, rater.rater, choice, first, now()),
            )

    def take_in(self, votes: Iterable[tuple[str, int, Choice, Side]]) -> int:
        """Keep votes of a crowd, all of them or none; a worker's earlier vote on a pair stays.

        Args:
            votes: worker, pair, choice and whose map was first.

        Returns:
            How many were new.
        """
        with self._transaction():
            known = dict(self._connection.execute("SELECT name, rater FROM raters WHERE source = 'crowd'"))
            before = self._connection.total_changes
            joined = 0  # rows that are not votes
            for worker, pair, choice, first in votes:
                if worker not in known:
                    row = self._connection.execute("INSERT INTO raters (source, name) VALUES ('crowd', ?)", (worker,))
                    known[worker] = row.lastrowid
                    joined += 1
                self._connection.execute(
                    "INSERT INTO votes VALUES (?, ?, ?, ?, ?) ON CONFLICT (pair, rater) DO NOTHING",
                    (pair, known[worker], choice, first, now()),
                )
            return self._connection.total_changes - before - joined

    def votes(self, rater: Rater | None = None) -> list[Vote]:
        """All votes, or one rater's, in the order of pairs and raters."""
        every = "SELECT pair, rater, choice, first, at FROM votes"
        if rater is None:
            return [Vote(*row) for row in self._read(f"{every} ORDER BY pair, rater")]
        return [Vote(*row) for row in self._read(f"{every} WHERE rater = ? ORDER BY pair", rater.rater)]

    def _read_pairs(self) -> Iterable[Pair]:
        names: dict[int, dict[Part, str]] = {}
        for name, pair, part in self._read("SELECT name, pair, part FROM pictures WHERE pair IS NOT NULL"):
            names.setdefault(pair, {})[part] = name
        for pair, index, label in self._read("SELECT pair, sample, label FROM pairs ORDER BY pair"):
            yield Pair(pair, index, label, names[pair])


def _fill(
    connection: sqlite3.Connection, facts: Mapping[str, Any], pairs: Iterable[Drawn], examples: Mapping[str, bytes]
) -> None:
    connection.executescript(SCHEMA)
    study = (secrets.token_hex(4), secrets.token_urlsafe(16), json.dumps(dict(facts)))
    connection.execute("INSERT INTO study VALUES (?, ?, ?)", study)
    for number, drawn in enumerate(pairs):
        connection.execute("INSERT INTO pairs VALUES (?, ?, ?)", (number, drawn.index, drawn.label))
        connection.executemany(
            "INSERT INTO pictures VALUES (?, ?, ?, ?)",
            [(secrets.token_hex(12), number, part, jpeg) for part, jpeg in drawn.pictures.items()],
        )
    connection.executemany(
        "INSERT INTO pictures VALUES (?, NULL, 'example', ?)", [(name, jpeg) for name, jpeg in examples.items()]
    )
