"""Human ratings of the maps of trained models: how to collect them, and the votes."""

from pathlib import Path
from typing import Annotated, Any, get_args

import torch
from pydantic import Field

from sightline._core.strict import Positive
from sightline.experiments.outputs.base import OUTPUTS, Output
from sightline.experiments.outputs.runs import FinishedRuns
from sightline.rating.results import Results, Verdict, results
from sightline.rating.study import FILE, IMAGES, open_study
from sightline.reporting.markdown import markdown
from sightline.runs import Run
from sightline.studies.recipes import file_name
from sightline.studies.study import Part

VERDICTS: tuple[Verdict, ...] = get_args(Verdict)


@OUTPUTS.register("votes")
class Votes(Output):
    """Votes of people who compare the maps of each variant with those of the first one, for the first seed.

    The report lists the commands that serve the pages. The study counts the votes when it runs again.

    Attributes:
        maps: what the paper calls an explainer -> its name.
        num_images: how many of the split's images are shown.
        split: where they are drawn from; null takes the main test split.
        paper_votes: `row, explainer` -> the paper's shares of pos, same and neg.
    """

    maps: Annotated[dict[str, str], Field(min_length=1)]
    num_images: Positive = IMAGES
    split: str | None = None
    paper_votes: dict[str, dict[Verdict, float]] = Field(default_factory=dict)

    def measure(self, run: Run, device: torch.device) -> Part:
        """Keep where the run is; people look at its maps."""
        return Part({"run": str(run.path)})

    def table(self, runs: FinishedRuns) -> list[dict[str, Any]]:
        """Return one row per share of the votes."""
        return [
            {"variant": f"{row}, {label}", "seed": _seed(runs), "column": verdict, "value": value, "n": found.decided}
            for row, label, _, found in self._pairs(runs)
            if found is not None and found.shares is not None
            for verdict, value in found.shares.items()
        ]

    def summary(self, runs: FinishedRuns) -> str:
        """Return the shares with the paper's, and the commands to run."""
        rows, commands = [], []
        for row, label, command, found in self._pairs(runs):
            paper = self.paper_votes.get(f"{row}, {label}", {})
            shares = found.shares if found is not None else None
            cells = [f"{shares[verdict]:.0%}" if shares else "…" for verdict in VERDICTS]
            printed = [f" [{paper[verdict]:.0%}]" if verdict in paper else "" for verdict in VERDICTS]
            decided = f"{found.decided} of {len(found.rows)}" if found is not None else "not asked yet"
            rows.append([row, label, *map("".join, zip(cells, printed)), decided])
            commands += [] if command is None or shares is not None else [command]
        text = [
            f"Share of images whose map people find better (pos), similar or tied (same), or worse (neg) than that of "
            f"{runs.first}; in square brackets the paper's. An image counts once five people have voted.",
            markdown(["Run", "Maps", *VERDICTS, "Images decided"], rows),
        ]
        if commands:
            text.append("These commands serve the pages; this study counts the votes when it runs again:")
            text.append("\n".join(["```", *commands, "```"]))
        return "\n\n".join(text)

    def _pairs(self, runs: FinishedRuns) -> list[tuple[str, str, str | None, Results | None]]:
        """Row, explainer's label, the command that asks people (None = a run is missing), and their votes."""
        found: list[tuple[str, str, str | None, Results | None]] = []
        for rows in runs.panels.values():
            first, *others = (f"{row}/{_seed(runs)}" for row in rows.values())
            for label, name in self.maps.items():
                for other in others:
                    row = other.rpartition("/")[0]
                    if first not in runs.done or other not in runs.done:
                        found.append((row, label, None, None))
                        continue
                    ours, base = (Path(runs.done[part].values["run"]) for part in (other, first))
                    folder = ours.parents[1] / "rating" / file_name(f"{row} {label}")
                    command = (
                        f"sightline rate {ours} {base} --explainers {name} --images {self.num_images} "
                        + (f"--split {self.split} " if self.split else "")
                        + f"--output {folder}"
                    )
                    found.append((row, label, command, _count(folder)))
        return found


def _seed(runs: FinishedRuns) -> int:
    """Return the seed whose runs people rate."""
    return int(runs.parts[0].rpartition("/")[2])


def _count(folder: Path) -> Results | None:
    """Count the votes in a folder; None if nobody voted."""
    if not (folder / FILE).is_file():
        return None
    store = open_study(folder)
    try:
        return results(store)
    finally:
        store.close()
