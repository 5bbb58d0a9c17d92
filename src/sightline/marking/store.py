"""The marks of a session in one SQLite file: people, every action with its result, and the refits."""

import json
import math
import secrets
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from sightline.errors import SightlineError
from sightline.fixing.marks import Mark
from sightline.fixing.protocol import Figure, Refitted
from sightline.marking.drawing import Drawing
from sightline.serving.store_file import NameTakenError, StoreFile, create_file, now

SCHEMA = """
CREATE TABLE session (id TEXT NOT NULL, token TEXT NOT NULL, fingerprint TEXT NOT NULL, images INTEGER NOT NULL,
    chosen INTEGER REFERENCES refits);
CREATE TABLE people (person INTEGER PRIMARY KEY, name TEXT UNIQUE, secret TEXT NOT NULL UNIQUE);
CREATE TABLE actions (
    action INTEGER PRIMARY KEY AUTOINCREMENT,
    image INTEGER NOT NULL,
    person INTEGER NOT NULL REFERENCES people,
    kind TEXT NOT NULL,
    drawing TEXT NOT NULL,
    object BLOB,
    avoid BLOB,
    at TEXT NOT NULL,
    undone INTEGER NOT NULL DEFAULT 0 CHECK (undone IN (0, 1))
);
CREATE INDEX of_image ON actions (image, undone, action);
CREATE TABLE refits (
    refit INTEGER PRIMARY KEY,
    person INTEGER NOT NULL REFERENCES people,
    marked INTEGER NOT NULL,
    found TEXT NOT NULL,
    html TEXT NOT NULL,
    at TEXT NOT NULL
);
"""
DRAWN = "SELECT drawing, object, avoid FROM actions"
REDO = "undone = 1 AND action > coalesce((SELECT max(action) FROM actions WHERE image = :image AND undone = 0), 0)"
LATEST = "SELECT max(action) FROM actions WHERE undone = 0 GROUP BY image"


@dataclass(frozen=True)
class Person:
    """A person who marks.

    Attributes:
        person: a number, from 1.
        name: as given; None = none was.
        secret: what the person's own link carries.
    """

    person: int
    name: str | None
    secret: str

    @property
    def title(self) -> str:
        """What the page calls the person."""
        return self.name or f"#{self.person}"


@dataclass(frozen=True)
class KeptRefit:
    """A stored refit.

    Attributes:
        number: from 1.
        marked: how many images had a mark.
        at: when, in UTC, as ISO 8601.
        figures: what was measured.
        summary: what the refit reports about itself.
        helped: whether the refitted model is better.
        html: a fragment for the page.
    """

    number: int
    marked: int
    at: str
    figures: tuple[Figure, ...]
    summary: str
    helped: bool
    html: str


class Store(StoreFile):
    """The marks of a session. What a method has written is on the disk when it returns.

    Attributes:
        id: a few letters that tell one session from another.
        token: what every link carries.
        fingerprint: of the images and the model.
    """

    what: ClassVar[str] = "marking session"
    missing: ClassVar[str] = "name the model and the data"

    def _open(self) -> None:
        ((self.id, self.token, self.fingerprint),) = self._read("SELECT id, token, fingerprint FROM session")

    @classmethod
    def open(cls, path: Path, fingerprint: str, images: int) -> "Store":
        """Open the session at a path, or make it.

        Raises:
            SightlineError: the existing session is of other images or another model.
        """
        if not path.exists():

            def fill(connection: sqlite3.Connection) -> None:
                connection.executescript(SCHEMA)
                row = (secrets.token_hex(4), secrets.token_urlsafe(16), fingerprint, images)
                connection.execute("INSERT INTO session VALUES (?, ?, ?, ?, NULL)", row)

            create_file(path, fill)
        store = cls(path)
        if store.fingerprint != fingerprint:
            store.close()
            raise SightlineError(
                f"{path} holds marks of other images or another model; name another folder, or give the same model and data"
            )
        return store

    def join(self, name: str | None) -> Person:
        """Let a person in, with a new secret.

        Raises:
            NameTakenError: another person has that name.
        """
        secret = secrets.token_urlsafe(12)
        try:
            with self._transaction() as connection:
                cursor = connection.execute("INSERT INTO people (name, secret) VALUES (?, ?)", (name, secret))
        except sqlite3.IntegrityError as error:
            raise NameTakenError(f"the name {name!r} is taken") from error
        return Person(int(cursor.lastrowid or 0), name, secret)

    def person(self, secret: str) -> Person | None:
        """Return the person of a secret; None where there is none."""
        rows = self._read("SELECT person, name, secret FROM people WHERE secret = ?", secret)
        return Person(*rows[0]) if rows else None

    def add(self, image: int, person: Person, kind: str, drawing: Drawing) -> None:
        """Keep an action with what it made of the image's drawing."""
        row = (image, person.person, kind, *drawing.encode(), now())
        with self._transaction() as connection:
            connection.execute(
                "INSERT INTO actions (image, person, kind, drawing, object, avoid, at) VALUES (?, ?, ?, ?, ?, ?, ?)",
                row,
            )

    def drawing(self, image: int) -> Drawing:
        """Return what the actions on an image made of it."""
        rows = self._read(f"{DRAWN} WHERE image = ? AND undone = 0 ORDER BY action DESC LIMIT 1", image)
        return Drawing.decode(*rows[0]) if rows else Drawing()

    def version(self, image: int) -> int:
        """Return a number that changes with every change of an image's drawing."""
        (row,) = self._read("SELECT coalesce(max(action), 0), total(undone) FROM actions WHERE image = ?", image)
        return int(row[0]) * 10_000 + int(row[1])

    def undo(self, image: int) -> str | None:
        """Take back the latest action on an image; return its kind, or None where there is none."""
        return self._turn(image, "undone = 0 ORDER BY action DESC", 1)

    def redo(self, image: int) -> str | None:
        """Do again what was taken back last; return its kind, or None where there is nothing or something came after."""
        return self._turn(image, f"{REDO} ORDER BY action", 0)

    def can_undo(self, image: int) -> bool:
        """Return whether an image has an action that was not taken back."""
        return bool(self._read("SELECT 1 FROM actions WHERE image = ? AND undone = 0 LIMIT 1", image))

    def can_redo(self, image: int) -> bool:
        """Return whether an image has an action to do again."""
        return bool(self._read(f"SELECT 1 FROM actions WHERE image = :image AND {REDO} LIMIT 1", {"image": image}))

    def marks(self) -> dict[int, Mark]:
        """Return the mark of every image that has one."""
        rows = self._read(
            f"SELECT image, drawing, object, avoid FROM actions WHERE action IN ({LATEST}) ORDER BY image"
        )
        marks = {image: Drawing.decode(*drawn).mark for image, *drawn in rows}
        return {image: mark for image, mark in marks.items() if not mark.is_empty}

    def touched(self) -> set[int]:
        """Return the images with an action that was not taken back."""
        return {image for (image,) in self._read("SELECT DISTINCT image FROM actions WHERE undone = 0")}

    def progress(self) -> dict[str, int]:
        """Return how many images are marked, have a mask of the object, and have a mask of what must not matter."""
        parts = ", ".join(f"total(json_extract(drawing, '$.{layer}.mask'))" for layer in ("object", "avoid"))
        (row,) = self._read(f"SELECT count(*), {parts} FROM actions WHERE action IN ({LATEST})")
        return {name: int(value) for name, value in zip(("marked", "objects", "avoided"), row)}

    def history(self, image: int) -> list[dict[str, Any]]:
        """Return all actions on an image in their order, also those that were taken back."""
        names = ("kind", "person", "name", "at", "undone")
        rows = self._read(
            "SELECT kind, person, name, at, undone FROM actions JOIN people USING (person) WHERE image = ? ORDER BY action",
            image,
        )
        return [dict(zip(names, row)) for row in rows]

    def next_refit(self) -> int:
        """Return the number of the next refit."""
        return int(self._read("SELECT coalesce(max(refit), 0) + 1 FROM refits")[0][0])

    def add_refit(self, number: int, person: Person, marked: int, refitted: Refitted) -> None:
        """Keep a refit, and choose it if it helped."""
        found = {
            "figures": [
                {
                    "name": figure.name,
                    "before": _finite(figure.before),
                    "after": _finite(figure.after),
                    "interval": None if figure.interval is None else [_finite(end) for end in figure.interval],
                }
                for figure in refitted.figures
            ],
            "summary": refitted.summary,
            "helped": bool(refitted.helped),
        }
        with self._transaction() as connection:
            row = (number, person.person, marked, json.dumps(found), refitted.html, now())
            connection.execute("INSERT INTO refits VALUES (?, ?, ?, ?, ?, ?)", row)
            if refitted.helped:
                connection.execute("UPDATE session SET chosen = ?", (number,))

    def refits(self) -> list[KeptRefit]:
        """Return all refits in their order."""
        rows = self._read("SELECT refit, marked, at, found, html FROM refits ORDER BY refit")
        return [_kept(*row) for row in rows]

    def chosen(self) -> int | None:
        """Return the refit that is exported; None = the given model."""
        number = self._read("SELECT chosen FROM session")[0][0]
        return None if number is None else int(number)

    def choose(self, number: int | None) -> None:
        """Choose the refit that is exported; None = the given model.

        Raises:
            SightlineError: there is no such refit.
        """
        if number is not None and not self._read("SELECT 1 FROM refits WHERE refit = ?", number):
            raise SightlineError(f"there is no refit {number}")
        with self._transaction() as connection:
            connection.execute("UPDATE session SET chosen = ?", (number,))

    def _turn(self, image: int, which: str, undone: int) -> str | None:
        with self._transaction() as connection:
            query = f"SELECT action, kind FROM actions WHERE image = :image AND {which} LIMIT 1"
            row = connection.execute(query, {"image": image}).fetchone()
            if row is None:
                return None
            connection.execute("UPDATE actions SET undone = ? WHERE action = ?", (undone, row[0]))
            return str(row[1])


def _finite(value: float | None) -> float | None:
    """Return a plain number; None for what is not finite, which JSON does not have."""
    return float(value) if value is not None and math.isfinite(value) else None


def _kept(number: int, marked: int, at: str, found: str, html: str) -> KeptRefit:
    known: Mapping[str, Any] = json.loads(found)
    figures = tuple(
        Figure(**{**figure, "interval": None if figure["interval"] is None else tuple(figure["interval"])})
        for figure in known["figures"]
    )
    return KeptRefit(number, marked, at, figures, known["summary"], known["helped"], html)
