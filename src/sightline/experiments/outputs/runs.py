"""The finished runs of a study, as its outputs read them."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from statistics import mean

from sightline.statistics.intervals import Interval, over_seeds
from sightline.studies.lines import Lines
from sightline.studies.study import Done, Part
from sightline.studies.tables import PaperValue

Values = Mapping[str, Mapping[str, float]]  # row -> seed -> value
Curves = Mapping[str, Mapping[str, Mapping[float, float]]]  # row -> seed -> place -> value


@dataclass(frozen=True)
class FinishedRuns:
    """The finished runs of a table of variants x seeds.

    Attributes:
        panels: for each combination of the grid by its name ("" = no grid): variant -> the name of its row.
        parts: the names of all runs, `row/seed`, in the order of work.
        done: the finished runs.
        made: the finished results of the study's steps.
        paper_values: row -> column -> the paper's value.
    """

    panels: dict[str, dict[str, str]]
    parts: list[str]
    done: Done
    made: Done
    paper_values: dict[str, dict[str, PaperValue]]

    @property
    def rows(self) -> list[str]:
        """All rows of the table."""
        return [row for rows in self.panels.values() for row in rows.values()]

    @property
    def first(self) -> str:
        """The label of the variant that the others are compared with."""
        return next(iter(next(iter(self.panels.values()))))

    @property
    def complete(self) -> bool:
        """Whether every run is finished."""
        return set(self.parts) <= set(self.done)

    def expects(self, row: str) -> bool:
        """Return whether the study has runs of a row, done or not."""
        return any(name.rpartition("/")[0] == row for name in self.parts)

    def of(self, row: str) -> dict[str, Part]:
        """Return the finished runs of a row, by seed."""
        return {seed: part for label, seed, part in self if label == row}

    def __iter__(self) -> Iterator[tuple[str, str, Part]]:
        """Yield row, seed and part of every finished run."""
        for name, part in self.done.items():
            row, _, seed = name.rpartition("/")
            yield row, seed, part

    def lines(self, curves: Curves) -> dict[str, Lines]:
        """Return for each panel the lines of its variants, from row -> seed -> place -> value; see `line_panels`."""
        return {
            title: {label: _collected(curves[row].values()) for label, row in labels.items()}
            for title, labels in self.panels.items()
        }

    def differences(self, values: Values) -> Iterator[tuple[str, float, Interval, int]]:
        """Compare each row with the first of its combination: row, difference, interval, number of seeds."""
        for labels in self.panels.values():
            first = values[next(iter(labels.values()))]
            for row in list(labels.values())[1:]:
                seeds = [seed for seed in values[row] if seed in first]
                own, other = ([some[seed] for seed in seeds] for some in (values[row], first))
                if (interval := over_seeds(own, other, paired=True)) is not None:
                    yield row, mean(own) - mean(other), interval, len(seeds)

    def differences_text(self, what: str, values: Values) -> list[str]:
        """Return a paragraph on the differences from the first variant; empty with fewer than two seeds."""
        lines = [
            f"- {row}: {difference:+.3f} ({interval.low:+.3f} to {interval.high:+.3f})"
            + ("" if interval.excludes_zero else ", not significant")
            for row, difference, interval, _ in self.differences(values)
        ]
        intro = (
            f"{what}, difference from {self.first} with its 95 % interval (Student's t over paired seeds, not corrected "
            "for their number):"
        )
        return ["\n".join([intro, "", *lines])] if lines else []


def _collected(curves: Iterable[Mapping[float, float]]) -> dict[float, list[float]]:
    """Return the values of several curves at each place."""
    found: dict[float, list[float]] = {}
    for curve in curves:
        for place, value in curve.items():
            found.setdefault(place, []).append(value)
    return found
