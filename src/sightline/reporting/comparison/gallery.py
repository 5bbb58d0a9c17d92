"""The images of the report: the same image under the maps of both groups."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath

import torch
from torch import Tensor

from sightline._core.seeding import generator
from sightline.evaluation.comparison import CHANCE, SplitComparison
from sightline.evaluation.kept_images import energy_on_object
from sightline.evaluation.split_folder.folder import SplitEvaluation
from sightline.evaluation.split_folder.gallery import SavedGallery
from sightline.reporting.overlay import overlay_uri
from sightline.reporting.thumbnails import data_uri, enlarge, outline


@dataclass(frozen=True)
class RunView:
    """One run on one image."""

    picture: str  # data URI: the map over the grey image, the mask outlined
    predicted: str
    probability: float
    correct: bool
    energy: float | None  # share of the map's sum that is on the object; None without mask or for an empty map


@dataclass(frozen=True)
class GalleryItem:
    """One image with both views at it."""

    picture: str  # data URI: the image, the mask outlined
    name: str  # of the file
    label: str
    ours: RunView
    theirs: RunView


@dataclass(frozen=True)
class Gallery:
    """The images shown for one split.

    Attributes:
        explainer: whose maps they are.
        pool: number of images that they were chosen from.
        measure: what "change" means here.
        changed: those of largest change, the largest first.
        drawn: others, drawn at random.
    """

    explainer: str
    pool: int
    measure: str
    changed: list[GalleryItem]
    drawn: list[GalleryItem]


def make_gallery(split: SplitComparison, classes: Sequence[str], count: int = 8) -> Gallery | None:
    """Choose images by largest change and at random, and draw them with the maps of the first run of each group.

    The change of an image is that of its maps' energy on the object, in either direction; without masks, the mean
    absolute difference of the two maps.

    Returns:
        None where the runs kept no gallery or share no explainer in it.
    """
    evaluations = split.ours[0], split.theirs[0]
    ours, theirs = (evaluation.gallery for evaluation in evaluations)
    if ours is None or theirs is None or ours.index != theirs.index:
        return None
    explainers = [name for name in split.explainers if name in ours.maps and name in theirs.maps and name not in CHANCE]
    if not explainers:
        return None
    explainer = explainers[0]
    energies = [[_energy(g, row, explainer) for row in range(len(g.index))] for g in (ours, theirs)]
    changes = [abs(a - b) if a is not None and b is not None else None for a, b in zip(*energies)]
    if any(change is not None for change in changes):
        measure = "the share of the map that is on the object"
        ranked = sorted((r for r, c in enumerate(changes) if c is not None), key=lambda r: -(changes[r] or 0))
    else:
        measure = "the map, by the mean absolute difference of its pixels"
        distance = (ours.maps[explainer].float() - theirs.maps[explainer].float()).abs().flatten(1).mean(1)
        ranked = distance.argsort(descending=True, stable=True).tolist()
    changed = ranked[:count]
    order = torch.randperm(len(ours.index), generator=generator(0, "gallery", split.split)).tolist()
    drawn = [row for row in order if row not in changed][:count]

    def draw(row: int) -> GalleryItem:
        index = ours.index[row]
        image, border = enlarge(ours.image(index)), outline(ours.mask(index))
        views = [
            _view(evaluation, index, image, border, gallery.maps[explainer][row], energy[row], classes)
            for evaluation, gallery, energy in zip(evaluations, (ours, theirs), energies)
        ]
        samples = evaluations[0].samples
        place = samples.row(index)
        name = PurePath(str(samples.path[place])).name
        return GalleryItem(data_uri(image, border), name, classes[samples.label[place]], *views)

    return Gallery(explainer, len(ours.index), measure, [draw(r) for r in changed], [draw(r) for r in drawn])


def _view(
    evaluation: SplitEvaluation,
    index: int,
    image: Tensor,
    border: Tensor | None,
    saliency: Tensor,
    energy: float | None,
    classes: Sequence[str],
) -> RunView:
    samples, row = evaluation.samples, evaluation.samples.row(index)
    return RunView(
        picture=overlay_uri(image, saliency, border),
        predicted=classes[samples.predicted[row]],
        probability=float(samples.probability[row]),
        correct=bool(samples.correct[row]),
        energy=energy,
    )


def _energy(gallery: SavedGallery, row: int, explainer: str) -> float | None:
    mask = gallery.mask(gallery.index[row])
    energy = math.nan if mask is None else energy_on_object(gallery.maps[explainer][row], mask)
    return None if math.isnan(energy) else energy
