"""A study as a batch for a crowdsourcing service, and the batch's results back.

The CSV files are in the form of Amazon Mechanical Turk: a row of the batch is a pair; a row of its results is one
worker's answer to one pair, with the columns of the batch as `Input.<column>` and the answer as `Answer.choice`.
"""

import re
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from sightline._core.csv_files import csv_text, read_csv
from sightline._core.files import make_folder, write_atomically
from sightline._core.output_lock import LONG, holding_folder
from sightline._core.seeding import derive_seed
from sightline.errors import SightlineError
from sightline.rating.store import Choice, Pair, Side, Store

COLUMNS = ("pair", "label", "image", "first", "second")
FOLDER = "images"


def export_batch(store: Store, folder: str | Path, url: str | None = None) -> Path:
    """Write batch.csv, and the images that it names, under names that do not tell whose map they are.

    All workers see a pair in the same order, drawn again for each pair: a batch has one row per pair.

    Args:
        store: the study.
        folder: where to.
        url: where the images will be found, such as "https://example.org/images"; None = next to the file.

    Returns:
        The CSV file.

    Raises:
        RunFailedError: it cannot be written.
    """
    folder = Path(folder)
    base = (url or FOLDER).rstrip("/")
    rows = []
    with holding_folder(folder, LONG):
        make_folder(folder / FOLDER)
        for pair in store.pairs.values():
            swapped = derive_seed(int(store.facts["seed"]), "batch", pair.pair) % 2 == 1
            shown = [pair.names[part] for part in ("image", *(("b", "a") if swapped else ("a", "b")))]
            rows.append([pair.pair, pair.label, *(f"{base}/{name}.jpg" for name in shown)])
            for name in shown:
                write_atomically(folder / FOLDER / f"{name}.jpg", store.picture(name) or b"")
        write_atomically(folder / "batch.csv", csv_text(COLUMNS, rows).encode())
    return folder / "batch.csv"


def import_batch(store: Store, path: str | Path) -> tuple[int, int]:
    """Take in the results of a batch, all of them or none.

    Rows whose `AssignmentStatus` is "Rejected" are left out. What the study has already, of this worker on this pair, stays
    as it is: importing a file twice changes nothing.

    Args:
        store: the study that the batch was exported from.
        path: the CSV file, with the columns WorkerId, Input.pair, Input.first, Input.second and Answer.choice, whose
            answers are "first", "second" and "same".

    Returns:
        How many votes were new, and how many were there already.

    Raises:
        SightlineError: a column is missing, or a row is not of this study, or is no answer.
    """
    path = Path(path)
    votes = []
    for line, row in read_csv(path, ("WorkerId", "Input.pair", "Input.first", "Input.second", "Answer.choice")):
        if row.get("AssignmentStatus") == "Rejected":
            continue
        try:
            votes.append(_vote(store, row))
        except SightlineError as error:
            raise SightlineError(f"{path}, row {line}: {error}; nothing was imported") from None
    new = store.take_in(votes)
    return new, len(votes) - new


def _vote(store: Store, row: dict[str, str]) -> tuple[str, int, Choice, Side]:
    worker = row["WorkerId"]
    if not re.fullmatch(r"\w[\w.@-]{0,99}", worker):
        raise SightlineError(f"WorkerId is {worker!r}; expected letters and digits")
    number = row["Input.pair"]
    pair = store.pairs.get(int(number)) if re.fullmatch(r"[0-9]{1,9}", number) else None
    if pair is None:
        raise SightlineError(f"Input.pair is {number!r}; the study has the pairs 0 to {len(store.pairs) - 1}")
    first, second = _side(pair, row["Input.first"]), _side(pair, row["Input.second"])
    if first is None or second is None or first == second:
        raise SightlineError(f"Input.first and Input.second are not the maps of pair {pair.pair} of this study")
    answers: dict[str, Choice] = {"first": first, "second": second, "same": "same"}
    if row["Answer.choice"] not in answers:
        raise SightlineError(f"Answer.choice is {row['Answer.choice']!r}; expected 'first', 'second' or 'same'")
    return worker, pair.pair, answers[row["Answer.choice"]], first


def _side(pair: Pair, url: str) -> Side | None:
    """Return the side of a pair that an image shows, by the name of the image."""
    name = PurePosixPath(urlsplit(url).path).stem
    sides: tuple[Side, Side] = ("a", "b")
    return next((side for side in sides if pair.names[side] == name), None)
