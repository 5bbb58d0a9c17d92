"""The folder of an evaluation, written as a whole or not at all, and its summary.json."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from sightline._core.files import make_folder, replacing_folder
from sightline._core.output_lock import holding_folder
from sightline._core.reading import read_json, reading
from sightline.errors import SightlineError
from sightline.evaluation.result import Evaluation
from sightline.evaluation.split_folder.curves import curves_json, read_curves
from sightline.evaluation.split_folder.gallery import SavedGallery, read_gallery, write_gallery
from sightline.evaluation.split_folder.samples import Samples, read_samples, samples_csv
from sightline.statistics.bootstrap import Array

ADVICE = "evaluate the run again"
WAIT = 60.0  # seconds for another process that writes the same evaluation


class Key(NamedTuple):
    """What was measured: a metric, with the explainer whose maps it judges, if any."""

    metric: str
    explainer: str | None

    @property
    def column(self) -> str:
        """Its column of samples.csv."""
        return self.metric if self.explainer is None else f"{self.metric}@{self.explainer}"


@dataclass(frozen=True)
class SplitEvaluation:
    """One checkpoint on one split, as read from disk.

    Attributes:
        split: Name of the split.
        n: Number of images.
        facts: All of summary.json except the results.
        results: Value over the split.
        higher_is_better: Direction of each result.
        samples: The images one by one.
        curves: Explainer -> metric -> (2, points): degrees of the change, and the mean score at each.
        folder: Where it was read.
    """

    split: str
    n: int
    facts: dict[str, Any]
    results: dict[Key, float]
    higher_is_better: dict[Key, bool]
    samples: Samples
    curves: dict[str, dict[str, Array]]
    folder: Path

    @cached_property
    def gallery(self) -> SavedGallery | None:
        """The kept images, read when they are asked for."""
        return read_gallery(self.folder / "gallery")


def check_writable(folder: Path) -> None:
    """Reject, before the work rather than after it, a folder that cannot be made or written to.

    Raises:
        UnwritableError: The folder cannot be made or written to.
    """
    make_folder(folder)
    with holding_folder(folder, wait=WAIT):
        pass


def write_evaluation(
    evaluation: Evaluation, folder: Path, facts: dict[str, Any], paths: Sequence[str] | None = None
) -> None:
    """Write summary.json, samples.csv, curves.json and gallery/, and replace what the folder held.

    Everything is written next to the folder under a temporary name, and renamed when it is complete. Of two processes that
    evaluate the same split, the second one to end waits for the first one, and replaces its folder.

    Args:
        evaluation: What to write.
        folder: The folder.
        facts: What summary.json holds in addition to the evaluation's own facts.
        paths: (n,) Where each image came from.

    Raises:
        RunFailedError: The folder cannot be written. Its old content is unchanged.
    """
    results = [vars(result) for result in evaluation.results]
    summary = json.dumps({**facts, **evaluation.facts, "results": results}, indent=1)
    with holding_folder(folder.parent, wait=WAIT), replacing_folder(folder) as temporary:
        (temporary / "summary.json").write_bytes(summary.encode())
        (temporary / "samples.csv").write_bytes(samples_csv(evaluation.samples, paths).encode())
        (temporary / "curves.json").write_bytes(curves_json(evaluation.curves).encode())
        if evaluation.gallery is not None:
            write_gallery(evaluation.gallery, temporary / "gallery")


def read_evaluation(folder: Path) -> SplitEvaluation:
    """Read the folder of an evaluation.

    Raises:
        SightlineError: A file is missing or damaged; the message names the file.
    """
    facts = read_json(folder / "summary.json", ADVICE)
    with reading(folder / "summary.json", ADVICE):
        measured = {Key(r["metric"], r["explainer"]): r for r in facts.pop("results") if r["value"] is not None}
        results = {key: float(r["value"]) for key, r in measured.items()}
        higher_is_better = {key: bool(r["higher_is_better"]) for key, r in measured.items()}
        split, n = str(facts["split"]), int(facts["n"])
    samples = read_samples(folder / "samples.csv")
    if len(samples.index) != n:
        raise SightlineError(
            f"{folder / 'samples.csv'} holds {len(samples.index)} images; summary.json says {n}; {ADVICE}"
        )
    return SplitEvaluation(
        split, n, facts, results, higher_is_better, samples, read_curves(folder / "curves.json"), folder
    )


def evaluation_folders(run: Path) -> dict[str, Path]:
    """Return split -> folder of every evaluation of a run, by name; those that are still being written are left out."""
    summaries = sorted((run / "evaluation").glob("[!.]*/summary.json"))
    return {file.parent.name: file.parent for file in summaries}
