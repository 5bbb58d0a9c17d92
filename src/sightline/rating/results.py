"""What the votes say: pair by pair, together, and how far the raters agree."""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from sightline._core.checks import check_count
from sightline._core.csv_files import csv_text
from sightline._core.files import write_atomically
from sightline._core.optional import requires_extra
from sightline._core.output_lock import LONG, holding_folder
from sightline.rating.store import Choice, Store

if TYPE_CHECKING:
    from rich.table import Table

QUORUM = 5  # votes that decide a pair

Verdict = Literal["pos", "same", "neg"]
VERDICTS: dict[Choice, Verdict] = {"a": "pos", "same": "same", "b": "neg"}


def plurality(counts: Mapping[Choice, int]) -> Choice:
    """Return the answer with the most votes; "same" if two answers share the first place.

    The paper counts a tie of the two maps as no difference. A tie of a map with "no difference" is read in the same way: most
    raters did not prefer that map.
    """
    most = max(counts.values())
    leading = [choice for choice, votes in counts.items() if votes == most]
    return leading[0] if len(leading) == 1 else "same"


@dataclass(frozen=True)
class Agreement:
    """How far raters agree.

    Attributes:
        observed: the mean, over pairs, of the share of two raters' votes on a pair that are equal.
        expected: that share, were everyone to draw from the same mix of answers.
        kappa: (observed - expected) / (1 - expected); None where all votes are the same answer.
        pairs: those with two votes or more, which alone enter.
        equal: whether these have equally many votes each, as Fleiss assumes.
    """

    observed: float
    expected: float
    kappa: float | None
    pairs: int
    equal: bool


def fleiss_kappa(counts: NDArray[np.int64]) -> Agreement | None:
    """Fleiss' kappa ("Measuring nominal scale agreement among many raters", 1971).

    Where subjects have different numbers n_i of votes, each subject's agreement is taken among its own n_i (n_i - 1) / 2
    couples of votes and every subject counts the same in the mean; the mix of answers is that of all votes. With equal
    numbers this is Fleiss' formula.

    Args:
        counts: (subjects, answers), how many votes each answer got.

    Returns:
        None where no subject has two votes.
    """
    votes = counts.sum(1)
    counts, votes = counts[votes >= 2], votes[votes >= 2]
    if len(counts) == 0:
        return None
    observed = float(((counts * (counts - 1)).sum(1) / (votes * (votes - 1))).mean())
    expected = float(((counts.sum(0) / counts.sum()) ** 2).sum())
    kappa = (observed - expected) / (1 - expected) if expected < 1 else None
    return Agreement(observed, expected, kappa, len(counts), bool((votes == votes[0]).all()))


@dataclass(frozen=True)
class Row:
    """One pair.

    Attributes:
        pair: its number.
        index: the image's place in its split.
        label: its class.
        a: votes for the first contender's map.
        same: votes for no difference.
        b: votes for the second's.
        verdict: None where fewer than the quorum voted.
    """

    pair: int
    index: int
    label: str
    a: int
    same: int
    b: int
    verdict: Verdict | None


@dataclass(frozen=True)
class Results:
    """What a study found.

    Attributes:
        a: what the first contender is called; "pos" is in its favour.
        b: what the second is called; "neg" is in its favour.
        quorum: votes that decide a pair.
        rows: the pairs.
        raters: title -> number of votes, for those who have voted.
        shown_first: share in [0, 1], among votes for a map, of those for the map that was shown first; about 0.5 where
            raters look rather than click. None where no map was preferred.
        agreement: None where no pair has two votes.
    """

    a: str
    b: str
    quorum: int
    rows: list[Row]
    raters: dict[str, int]
    shown_first: float | None
    agreement: Agreement | None

    @property
    def decided(self) -> int:
        """Pairs with enough votes."""
        return sum(row.verdict is not None for row in self.rows)

    @property
    def shares(self) -> dict[Verdict, float] | None:
        """Verdict -> share of the decided pairs, in [0, 1]; None where none is decided."""
        if not self.decided:
            return None
        found = Counter(row.verdict for row in self.rows)
        return {verdict: found[verdict] / self.decided for verdict in get_args(Verdict)}

    @property
    def votes(self) -> int:
        """All votes."""
        return sum(row.a + row.same + row.b for row in self.rows)


def results(store: Store, quorum: int = QUORUM) -> Results:
    """Count a study's votes.

    Args:
        store: the study.
        quorum: votes that decide a pair; the paper's five.
    """
    check_count(quorum=quorum)
    votes, raters = store.votes(), store.raters()
    counts: dict[int, Counter[Choice]] = {number: Counter() for number in store.pairs}
    for vote in votes:
        counts[vote.pair][vote.choice] += 1
    rows = []
    for number, pair in store.pairs.items():
        found = {choice: counts[number][choice] for choice in get_args(Choice)}
        verdict = VERDICTS[plurality(found)] if sum(found.values()) >= quorum else None
        rows.append(Row(number, pair.index, pair.label, found["a"], found["same"], found["b"], verdict))
    a, b = contender_names(store)
    for_a_map = [vote for vote in votes if vote.choice != "same"]
    return Results(
        a=a,
        b=b,
        quorum=quorum,
        rows=rows,
        raters=dict(Counter(raters[vote.rater].title for vote in votes).most_common()),
        shown_first=float(np.mean([vote.choice == vote.first for vote in for_a_map])) if for_a_map else None,
        agreement=fleiss_kappa(np.array([[row.a, row.same, row.b] for row in rows])),
    )


def contender_names(store: Store) -> tuple[str, str]:
    """Return names of the two contenders: by explainer if the run is the same, by folder, or by the whole path."""
    a, b = store.facts["contenders"]
    if a["run"] == b["run"]:
        return a["explainer"], b["explainer"]
    folders = Path(a["run"]).name, Path(b["run"]).name
    return folders if folders[0] != folders[1] else (a["run"], b["run"])


def table(found: Results) -> "Table":
    """Return the results as a table for a terminal."""
    with requires_extra("cli", "a table in a terminal"):
        from rich.table import Table

    shown = Table(box=None, pad_edge=False, show_header=False)
    shown.add_column()
    shown.add_column(justify="right")
    shown.add_column(style="dim")
    meanings: dict[Verdict, str] = {
        "pos": f"{found.a} is better",
        "same": "no difference, or a tie",
        "neg": f"{found.b} is better",
    }
    for verdict, meaning in meanings.items():
        share = f"{found.shares[verdict]:.0%}" if found.shares else "–"
        shown.add_row(verdict, share, f"{meaning}: {sum(row.verdict == verdict for row in found.rows)} pairs")
    open_pairs = len(found.rows) - found.decided
    shown.add_row("decided", f"{found.decided} of {len(found.rows)}", _open(open_pairs, found.quorum))
    shown.add_row("votes", str(found.votes), f"of {len(found.raters)} raters" + _mix(found))
    shown.add_row("Fleiss' kappa", *_agreement(found.agreement))
    if found.shown_first is not None:
        shown.add_row("shown first", f"{found.shown_first:.0%}", "of the votes for a map are for the one on the left")
    return shown


def write(store: Store, found: Results, folder: Path) -> tuple[Path, Path]:
    """Write votes.csv, a row per vote, and results.json.

    Raises:
        RunFailedError: they cannot be written.
    """
    votes, summary = folder / "votes.csv", folder / "results.json"
    whole = asdict(found) | {"shares": found.shares, "decided": found.decided, "votes": found.votes}
    with holding_folder(folder, LONG):
        write_atomically(votes, votes_csv(store).encode())
        write_atomically(summary, json.dumps(store.facts | whole, indent=1, ensure_ascii=False).encode())
    return votes, summary


def votes_csv(store: Store) -> str:
    """All votes as CSV: pair, index, label, rater, source, choice (a, b or same), shown_first (a or b), at."""
    raters = store.raters()
    rows = []
    for vote in store.votes():
        pair, rater = store.pairs[vote.pair], raters[vote.rater]
        rows.append([pair.pair, pair.index, pair.label, rater.title, rater.source, vote.choice, vote.first, vote.at])
    return csv_text(["pair", "index", "label", "rater", "source", "choice", "shown_first", "at"], rows)


def _open(pairs: int, quorum: int) -> str:
    return f"{pairs} have fewer than {quorum} votes" if pairs else f"all have {quorum} votes or more"


def _mix(found: Results) -> str:
    if not found.votes:
        return ""
    for_a, same, for_b = (sum(getattr(row, name) for row in found.rows) / found.votes for name in ("a", "same", "b"))
    return f"; single votes: {for_a:.0%} for {found.a}, {same:.0%} no difference, {for_b:.0%} for {found.b}"


def _agreement(agreement: Agreement | None) -> tuple[str, str]:
    if agreement is None:
        return "–", "no pair has two votes"
    numbers = "equally many votes each" if agreement.equal else "different numbers of votes"
    shared = f"two raters agree on {agreement.observed:.0%} ({agreement.pairs} pairs, {numbers})"
    return "–" if agreement.kappa is None else f"{agreement.kappa:.2f}", shared
