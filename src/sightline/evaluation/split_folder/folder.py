"""The folder of an evaluation, written as a whole or not at all, and its summary.json."""

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

from sightline.errors import RunFailedError
from sightline.evaluation.result import Evaluation
from sightline.evaluation.split_folder.curves import curves_json, read_curves
from sightline.evaluation.split_folder.gallery import SavedGallery, read_gallery, write_gallery
from sightline.evaluation.split_folder.samples import Samples, read_samples, samples_csv
from sightline.evaluation.statistics import Array


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
    """Raise RunFailedError if a folder cannot be made or written to. Called before the work rather than after it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".{uuid4().hex}.tmp"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise RunFailedError(f"cannot write to {folder}: {error.strerror}") from error


def write_evaluation(
    evaluation: Evaluation, folder: Path, facts: dict[str, Any], paths: Sequence[str] | None = None
) -> None:
    """Write summary.json, samples.csv, curves.json and gallery/, and replace what the folder held.

    Everything is written next to the folder under a temporary name, and renamed when it is complete.

    Args:
        evaluation: What to write.
        folder: The folder.
        facts: What summary.json holds in addition to the evaluation's own facts.
        paths: (n,) Where each image came from.

    Raises:
        RunFailedError: The folder cannot be written. Its old content is unchanged.
    """
    temporary = folder.with_name(f".{folder.name}.{uuid4().hex}.tmp")
    try:
        temporary.mkdir(parents=True)
        results = [vars(result) for result in evaluation.results]
        _write(temporary / "summary.json", json.dumps({**facts, **evaluation.facts, "results": results}, indent=1))
        _write(temporary / "samples.csv", samples_csv(evaluation.samples, paths))
        _write(temporary / "curves.json", curves_json(evaluation.curves))
        if evaluation.gallery is not None:
            write_gallery(evaluation.gallery, temporary / "gallery")
        _swap(temporary, folder)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise RunFailedError(f"cannot write the evaluation to {folder}: {error.strerror}") from error


def read_evaluation(folder: Path) -> SplitEvaluation:
    """Read the folder of an evaluation. Errors are those of the files: OSError, KeyError, TypeError or ValueError."""
    facts = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    measured = {Key(r["metric"], r["explainer"]): r for r in facts.pop("results") if r["value"] is not None}
    return SplitEvaluation(
        split=facts["split"],
        n=facts["n"],
        facts=facts,
        results={key: float(r["value"]) for key, r in measured.items()},
        higher_is_better={key: bool(r["higher_is_better"]) for key, r in measured.items()},
        samples=read_samples(folder / "samples.csv"),
        curves=read_curves(folder / "curves.json"),
        folder=folder,
    )


def evaluation_folders(run: Path) -> dict[str, Path]:
    """Return split -> folder of every evaluation of a run, by name; those that are still being written are left out."""
    summaries = sorted((run / "evaluation").glob("[!.]*/summary.json"))
    return {file.parent.name: file.parent for file in summaries}


def _write(path: Path, text: str) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _swap(temporary: Path, folder: Path) -> None:
    """Put the new folder in the old one's place."""
    if not folder.exists():
        temporary.rename(folder)
        return
    old = folder.with_name(f".{folder.name}.{uuid4().hex}.old")
    folder.rename(old)
    try:
        temporary.rename(folder)
    except OSError:
        old.rename(folder)
        raise
    shutil.rmtree(old, ignore_errors=True)
