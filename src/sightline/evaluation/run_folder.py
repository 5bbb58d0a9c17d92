"""Run folders, read as they lie on disk."""

import csv
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor
from torchvision.transforms.v2.functional import pil_to_tensor

from sightline.errors import SightlineError

Array = NDArray[np.float64]
Integers = NDArray[np.int64]


class Key(NamedTuple):
    """What was measured: a metric, under an explainer where it judges maps."""

    metric: str
    explainer: str | None

    @property
    def column(self) -> str:
        """Its column of samples.csv."""
        return self.metric if self.explainer is None else f"{self.metric}@{self.explainer}"


@dataclass(frozen=True)
class Samples:
    """What is known of each image of a split, in the order of the split.

    Attributes:
        index: (n,) place in the data set, ascending.
        path: (n,) where the image came from.
        label: (n,) class index.
        predicted: (n,) class index.
        probability: (n,) of the predicted class.
        group: (n,) group index; None where the split has no groups.
        values: "<metric>@<explainer>" -> (n,), NaN where it is not defined for an image (no mask).
    """

    index: Integers
    path: list[str]
    label: Integers
    predicted: Integers
    probability: Array
    group: Integers | None
    values: dict[str, Array]

    @property
    def correct(self) -> Array:
        """(n,) 1 where the prediction is the label, else 0."""
        return (self.predicted == self.label).astype(float)

    def row(self, index: int) -> int:
        """Where the image of that index stands."""
        return int(np.searchsorted(self.index, index))


@dataclass(frozen=True)
class SavedGallery:
    """The images of a split that were kept with their maps.

    Attributes:
        folder: where they lie.
        index: (N,) place of each in the split.
        maps: explainer -> (N, h, w) uint8.
    """

    folder: Path
    index: list[int]
    maps: dict[str, Tensor]

    def image(self, index: int) -> Tensor:
        """(3, H, W) in [0, 1]."""
        return _pixels(self.folder / "images" / f"{index}.jpg", "RGB") / 255

    def mask(self, index: int) -> Tensor | None:
        """(H, W) bool, where the object is; None for an image without a mask."""
        path = self.folder / "masks" / f"{index}.png"
        return _pixels(path, "L")[0] == 1 if path.exists() else None


@dataclass(frozen=True)
class Evaluation:
    """One checkpoint on one split.

    Attributes:
        split: its name.
        n: number of images.
        checkpoint: the file that was evaluated.
        results: value over the split.
        higher_is_better: direction of each result.
        samples: the images one by one.
        curves: explainer -> metric -> (2, points): degrees of the change, and the mean score at each.
    """

    split: str
    n: int
    checkpoint: str
    results: dict[Key, float]
    higher_is_better: dict[Key, bool]
    samples: Samples
    curves: dict[str, dict[str, Array]]
    folder: Path

    @cached_property
    def gallery(self) -> SavedGallery | None:
        """The kept images, read when asked for."""
        path = self.folder / "gallery" / "maps.safetensors"
        if not path.exists():
            return None
        tensors = load_file(path)
        return SavedGallery(path.parent, tensors.pop("index").tolist(), tensors)


@dataclass(frozen=True)
class RunFolder:
    """One run.

    Attributes:
        path: the folder.
        info: run.json.
        recipe: recipe.yaml, every key resolved.
        history: column of metrics.csv -> one value an epoch, NaN where it holds none.
        evaluations: split -> what was measured on it.
    """

    path: Path
    info: dict[str, Any]
    recipe: dict[str, Any]
    history: dict[str, Array]
    evaluations: dict[str, Evaluation]

    @property
    def seed(self) -> int:
        """The seed it was trained with."""
        return int(self.info["seed"])

    def __str__(self) -> str:
        return str(self.path)


def read_run(path: str | Path) -> RunFolder:
    """Read a run folder with all its evaluations.

    Raises:
        SightlineError: it is not a run folder, a file of it is damaged, or it was never evaluated.
    """
    path = Path(path)
    if not (path / "run.json").is_file():
        raise SightlineError(f"{path} is not a run folder: it holds no run.json (runs are made by `sightline train`)")
    summaries = sorted((path / "evaluation").glob("[!.]*/summary.json"))  # hidden ones are being written
    if not summaries:
        raise SightlineError(f"{path} has not been evaluated; run `sightline evaluate {path}` first")
    try:
        return RunFolder(
            path=path,
            info=json.loads((path / "run.json").read_text()),
            recipe=yaml.safe_load((path / "recipe.yaml").read_text()),
            history=_read_history(path / "metrics.csv"),
            evaluations={file.parent.name: _read_evaluation(file.parent) for file in summaries},
        )
    except (OSError, KeyError, TypeError, ValueError, yaml.YAMLError) as error:
        if isinstance(error, SightlineError):
            raise
        reason = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise SightlineError(f"the run folder {path} cannot be read: {reason}") from error


def _read_evaluation(folder: Path) -> Evaluation:
    summary = json.loads((folder / "summary.json").read_text())
    measured = {Key(r["metric"], r["explainer"]): r for r in summary["results"] if r["value"] is not None}
    curves = folder / "curves.json"
    return Evaluation(
        split=summary["split"],
        n=summary["n"],
        checkpoint=summary["checkpoint"],
        results={key: float(r["value"]) for key, r in measured.items()},
        higher_is_better={key: bool(r["higher_is_better"]) for key, r in measured.items()},
        samples=_read_samples(folder / "samples.csv"),
        curves=_read_curves(json.loads(curves.read_text())) if curves.exists() else {},
        folder=folder,
    )


def _read_samples(path: Path) -> Samples:
    columns = _read_csv(path)
    index = _integers(columns["index"])
    order = np.argsort(index)
    groups = columns.get("group", [])
    return Samples(
        index=index[order],
        path=[columns["path"][i] for i in order],
        label=_integers(columns["label"])[order],
        predicted=_integers(columns["predicted"])[order],
        probability=_floats(columns["probability"])[order],
        group=_integers(groups)[order] if groups and all(groups) else None,
        values={name: _floats(column)[order] for name, column in columns.items() if "@" in name},
    )


def _read_history(path: Path) -> dict[str, Array]:
    return {name: _floats(column) for name, column in _read_csv(path).items() if name != "stage"}


def _read_curves(curves: dict[str, Any]) -> dict[str, dict[str, Array]]:
    return {
        explainer: {metric: np.asarray([curve["at"], curve["score"]], float) for metric, curve in some.items()}
        for explainer, some in curves.items()
    }


def _read_csv(path: Path) -> dict[str, list[str]]:
    with path.open(newline="") as file:
        header, *rows = csv.reader(file)
    return {name: [row[i] for row in rows] for i, name in enumerate(header)}


def _floats(column: list[str]) -> Array:
    return np.array([float(cell) if cell else np.nan for cell in column])


def _integers(column: list[str]) -> Integers:
    return np.array([int(cell) for cell in column], dtype=np.int64)


def _pixels(path: Path, mode: str) -> Tensor:
    with Image.open(path) as image:
        return pil_to_tensor(image.convert(mode)).to(torch.float32)
