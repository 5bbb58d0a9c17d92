"""Images of several sources, such as hospitals, cameras or sites: what holds in all of them, and can features tell them?"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

import torch
from scipy.stats import binomtest
from torch import Tensor, nn

from sightline._core.csv_files import is_missing, read_csv
from sightline.diagnosis.probe import FOLDS, Probe, deep_features, fitted_answers, out_of_fold, probe
from sightline.errors import SightlineError
from sightline.localization.annotation import Annotated
from sightline.network.input_spec import InputSpec


@dataclass(frozen=True)
class SourceProbe:
    """What is known of one source.

    Attributes:
        name: of the source.
        images: how many images are from it.
        accuracy: the model's.
        left_out: accuracy of a regression on features that was fitted to the other sources; NaN where these show one class.
        within: accuracy of a regression on these images that was fitted to images of all sources.
    """

    name: str
    images: int
    accuracy: float
    left_out: float
    within: float


@dataclass(frozen=True)
class Sources:
    """What several sources are to a model.

    Attributes:
        told: how well features predict the source.
        told_in_class: the same by a regression for each class, so sources that differ in their classes count for nothing.
        each: the sources, the one with the largest loss when it is left out first.
    """

    told: Probe
    told_in_class: Probe
    each: list[SourceProbe]


def compare_sources(
    model: nn.Module, shown: Annotated, hits: Tensor, sources: Sequence[str], input_spec: InputSpec | None
) -> Sources:
    """Leave one source out at a time, and tell the source from features.

    Args:
        model: a classifier with a last linear layer, whose input the features are.
        shown: the images.
        hits: (n,) 1 where the model is right.
        sources: the source of each image.
        input_spec: normalizes images in [0, 1].

    Raises:
        SightlineError: there is one source, or the number of sources is not that of the images.
    """
    if len(sources) != len(shown):
        raise SightlineError(f"sources has {len(sources)} names; expected one for each of the {len(shown)} images")
    names = sorted(set(sources))
    if len(names) < 2:
        raise SightlineError(f"sources is {names[0]!r} for every image; expected two sources or more")
    ids = torch.tensor([names.index(source) for source in sources])
    labels = shown.labels
    features = deep_features(model, shown.images, input_spec)
    overall = out_of_fold(features, labels) == labels
    each = []
    for number, name in enumerate(names):
        inside = ids == number
        known = labels[~inside].unique()
        left_out = float("nan")
        if len(known) > 1:
            answers = fitted_answers(features[~inside], labels[~inside], features[inside])
            left_out = float((answers == labels[inside]).float().mean())
        within = float(overall[inside].float().mean())
        each.append(SourceProbe(name, int(inside.sum()), float(hits[inside].mean()), left_out, within))
    each.sort(key=lambda source: -(source.within - source.left_out) if source.left_out == source.left_out else 1.0)
    return Sources(probe("the source", features, ids, tests=2), _told_in_class(features, ids, labels), each)


def _told_in_class(features: Tensor, ids: Tensor, labels: Tensor) -> Probe:
    """Tell the source among the images of each class; chance always says the most frequent source of the class."""
    right, chance, total = 0, 0, 0
    for label in labels.unique():
        rows = (labels == label).nonzero().flatten()
        some = ids[rows]
        if len(some.unique()) < 2 or len(rows) < FOLDS:
            continue
        right += int((out_of_fold(features[rows], some) == some).sum())
        chance += int(some.bincount().max())
        total += len(rows)
    if not total:
        return Probe("the source among images of the same class", float("nan"), float("nan"), 1.0, 0)
    p = float(binomtest(right, total, chance / total, "greater").pvalue)
    return Probe("the source among images of the same class", right / total, chance / total, min(1.0, 2 * p), total)


def read_sources(paths: Sequence[str], where: str) -> list[str]:
    """Return the source of each image file.

    Args:
        paths: the files.
        where: "folder:N" = the name of the N-th folder above the image, 1 being the one that holds it; or "FILE.csv:COLUMN" = a
            column of a CSV file whose column `path` names the images, by their last folders and name.

    Raises:
        SightlineError: it is neither, there are too few folders, or an image is missing in the file.
    """
    file, _, key = where.rpartition(":")
    if file == "folder" and key.isdigit() and int(key) >= 1:
        found = []
        for path in paths:
            parts = PurePath(path).parts
            if len(parts) <= int(key):
                raise SightlineError(f"sources is {where!r}; {path} has fewer folders; give a smaller number")
            found.append(parts[-1 - int(key)])
        return found
    if not file or not key or file == "folder":
        raise SightlineError(f"sources is {where!r}; expected 'folder:N' with N of 1 or more, or 'FILE.csv:COLUMN'")
    rows: dict[tuple[str, ...], str] = {}
    for line, row in read_csv(Path(file), ["path", key]):
        if is_missing(row[key]):
            raise SightlineError(
                f"sources is {where!r}; {file}, line {line}, has no {key}; expected one for every image"
            )
        rows[PurePath(row["path"]).parts] = row[key]
    lengths = sorted({len(parts) for parts in rows}, reverse=True)
    found = []
    for path in paths:
        parts = PurePath(path).parts
        match = next((rows[parts[-n:]] for n in lengths if parts[-n:] in rows), None)
        if match is None:
            raise SightlineError(f"sources is {where!r}; {file} has no row for {path}; add one row per image")
        found.append(match)
    return found


def resolve_sources(sources: str | Sequence[str], shown: Annotated, images: int | None) -> Sequence[str]:
    """Return the source of each drawn image.

    Args:
        sources: what `read_sources` takes, or a name for each image of the data.
        shown: the drawn images.
        images: how many images the data has; None = batches, of which this is not known.

    Raises:
        SightlineError: there are not as many names as images, or `read_sources` rejects them.
    """
    if isinstance(sources, str):
        return read_sources(shown.paths, sources)
    if images is not None and len(sources) != images:
        raise SightlineError(f"sources has {len(sources)} names; expected one for each of the {images} images")
    return [sources[index] for index in shown.indices.tolist()]
