"""What people say of the maps of two trained models: the runs, how to ask, and the votes as far as there are any."""

from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import torch
from pydantic import Field

from sightline._core.strict import Positive
from sightline.rating.results import Results, Verdict, results
from sightline.rating.study import FILE, IMAGES, open_study
from sightline.reporting.markdown import markdown
from sightline.studies.kinds.training_runs import TrainingRuns, file_name
from sightline.studies.study import KINDS, Done, Part
from sightline.training import Run

VERDICTS: tuple[Verdict, ...] = get_args(Verdict)


@KINDS.register("judged")
class Judged(TrainingRuns):
    """Runs whose maps are compared by people with those of the first variant, beside the paper's percentages.

    The study trains the runs and says which commands serve the pages. The same command given again counts the votes.

    Attributes:
        maps: what the paper calls an explainer -> its name.
        images: how many of the split's images are shown.
        split: where they are drawn from.
        votes: row, explainer -> the paper's shares of pos, same and neg.
    """

    kind: Literal["judged"]  # type: ignore[assignment]
    maps: Annotated[dict[str, str], Field(min_length=1)]
    images: Positive = IMAGES
    split: str = "test"
    votes: dict[str, dict[Verdict, float]] = Field(default_factory=dict)

    def look(self, run: Run, device: torch.device) -> Part:
        """Where it is; people look at it."""
        return Part({"run": str(run.path)})

    def table(self, done: Done) -> list[dict[str, Any]]:
        """A row a variant, seed and column, and one for each share of the votes."""
        rated = [
            {"variant": f"{row}, {label}", "seed": self.seeds[0], "column": verdict, "value": value, "n": found.decided}
            for row, label, _, found in self._pairs(done)
            if found is not None and found.shares is not None
            for verdict, value in found.shares.items()
        ]
        return super().table(done) + rated

    def summary(self, done: Done) -> str:
        """The shares beside the paper's, the commands that are to be given, and the figures of the runs."""
        rows, commands = [], []
        for row, label, command, found in self._pairs(done):
            printed = self.votes.get(f"{row}, {label}", {})
            shares = found.shares if found is not None else None
            cells = [f"{shares[verdict]:.0%}" if shares else "…" for verdict in VERDICTS]
            beside = [f" [{printed[verdict]:.0%}]" if verdict in printed else "" for verdict in VERDICTS]
            decided = f"{found.decided} of {len(found.rows)}" if found is not None else "not asked yet"
            rows.append([row, label, *map("".join, zip(cells, beside)), decided])
            commands += [] if command is None or shares is not None else [command]
        text = [
            f"Share of images whose map people find better (pos), alike or tied (same), or worse (neg) than that of "
            f"{self.variants[0].label}; in square brackets the paper's. An image counts once five have voted.",
            markdown(["Run", "Maps", *VERDICTS, "Images decided"], rows),
        ]
        if commands:
            text.append("These serve the pages; this study counts the votes when it is given again:")
            text.append("\n".join(["```", *commands, "```"]))
        return "\n\n".join([*text, "## What the runs are worth", super().summary(done)])

    def _pairs(self, done: Done) -> list[tuple[str, str, str | None, Results | None]]:
        """Row, explainer's label, the command that asks people (None = a run is missing), and what they have said."""
        found: list[tuple[str, str, str | None, Results | None]] = []
        for rows in self.panels.values():
            first, *others = (f"{row}/{self.seeds[0]}" for row in rows.values())
            for label, name in self.maps.items():
                for other in others:
                    row = other.rpartition("/")[0]
                    if first not in done or other not in done:
                        found.append((row, label, None, None))
                        continue
                    ours, base = (Path(done[part].values["run"]) for part in (other, first))
                    folder = ours.parents[1] / "rating" / file_name(f"{row} {label}")
                    command = (
                        f"sightline rate {ours} {base} --explainers {name} --images {self.images} --split {self.split} "
                        f"--output {folder}"
                    )
                    found.append((row, label, command, _count(folder)))
        return found


def _count(folder: Path) -> Results | None:
    """The votes in a folder; None where nobody was asked."""
    if not (folder / FILE).is_file():
        return None
    store = open_study(folder)
    try:
        return results(store)
    finally:
        store.close()
