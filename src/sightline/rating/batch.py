"""The pairs of a study: images drawn at random, each with two maps over it."""

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from sightline._core.progress import bar
from sightline._core.seeding import generator
from sightline.data import DATASETS, ImageDataset
from sightline.data.loader import Transformed, collate
from sightline.data.splits import find_main_test
from sightline.data.transforms import eval_transform
from sightline.errors import SightlineError, unknown_name
from sightline.evaluation.split_folder.folder import evaluation_folders, read_evaluation
from sightline.evaluation.split_folder.gallery import SavedGallery
from sightline.evaluation.split_folder.samples import Samples
from sightline.explainers import EXPLAINERS, create_explainer, layer_for, resize_maps
from sightline.rating.store import Drawn
from sightline.reporting.overlay import show
from sightline.reporting.thumbnails import enlarge
from sightline.runs import Run, load_run
from sightline.runs.run_data import read_splits

SIDE = 480  # pixels of an image: sharp at the width that the page gives it
CHUNK = 16  # images that are explained together
EXAMPLE = 185  # of the embedded test images, the one that the instructions show: a 2 on petals


@dataclass(frozen=True)
class Contender:
    """Whose maps are compared.

    Attributes:
        run: a run's folder.
        explainer: the name of the explainer that makes the maps.
    """

    run: Path
    explainer: str

    def __post_init__(self) -> None:
        Run.open(self.run)
        EXPLAINERS[self.explainer]  # rejects an unknown name, with the nearest

    @property
    def facts(self) -> dict[str, str]:
        """What a study knows about the pair."""
        return {"run": str(self.run.resolve()), "explainer": self.explainer}


Explained = tuple[Tensor, Tensor]
"""Images (B, 3, H, W) and the maps (B, h, w) of one contender, both in [0, 1]."""


def draw_pairs(
    a: Contender, b: Contender, split: str, images: int, seed: int, *, progress: bool
) -> tuple[Iterator[Drawn], dict[str, Any]]:
    """Draw images, and both contenders' maps over them.

    The maps are those that the runs' evaluations kept, where both kept enough of them; else they are made now, all of
    them, of each run's best weights or else its last. They explain the class that each model predicts.

    Returns:
        The pairs, and what a study says about where they came from.

    Raises:
        SightlineError: the runs' data differ, or the split has fewer images.
    """
    data = _shared_data(a.run, b.run, split)
    if not 1 <= images <= data["images"]:
        raise SightlineError(f"images is {images}; expected 1 to {data['images']}, which {split} has")
    order = torch.randperm(data["images"], generator=generator(seed, data["fingerprint"], "rating")).tolist()
    ours, theirs = (_kept(contender, split, data["fingerprint"]) for contender in (a, b))
    if ours is not None and theirs is not None:
        in_both = set(ours[1].index) & set(theirs[1].index)
        chosen = [index for index in order if index in in_both][:images]
        if len(chosen) == images:
            classes = Run(a.run).facts["classes"]
            labels = [classes[ours[0].label[ours[0].row(index)]] for index in chosen]
            looks = [_select(ours[1], chosen, a.explainer), _select(theirs[1], chosen, b.explainer)]
            return _draw(chosen, labels, looks), {"data": data["fingerprint"], "maps": "kept by the evaluations"}
    chosen = order[:images]
    dataset = read_splits(Run(a.run))[split]
    dataset.check_single_label("rating")
    with bar(progress, "explaining", total=2 * images) as advance:
        looks = [_explained(contender, dataset, chosen, advance) for contender in (a, b)]
    labels = [dataset.classes[int(dataset.labels[index])] for index in chosen]
    return _draw(chosen, labels, looks), {"data": data["fingerprint"], "maps": "made for the study"}


def examples() -> dict[str, bytes]:
    """Return an image with a good and a bad map for the instructions: a digit of the bundled data.

    No model made these maps: the good one is the digit's mask, smoothed; the bad one is in the corner that is farthest
    from the digit.
    """
    sample = DATASETS.create("digits", copies=1, size=96)["test_shifted"][EXAMPLE]
    assert sample.mask is not None
    inside = sample.mask.float()[None]
    rows, columns = torch.meshgrid(torch.arange(96.0), torch.arange(96.0), indexing="ij")
    corners = [(y, x) for y in (20.0, 76.0) for x in (20.0, 76.0)]
    blobs = [(-((rows - y).square() + (columns - x).square()) / 2 / 13**2).exp() for y, x in corners]
    off = min(blobs, key=lambda blob: float((blob * inside[0]).sum()))
    on = F.gaussian_blur(inside, [37, 37], [6.0, 6.0])[0]
    image = enlarge(sample.image.float() / 255, SIDE)
    good, bad = (_over(image, m / m.max()) for m in (on, off))
    return {"example-image": _jpeg(image), "example-good": _jpeg(good), "example-bad": _jpeg(bad)}


def main_test_of(run: Path) -> str:
    """Return the name of the main test split of a run's data."""
    return find_main_test(_splits(run))


def _splits(run: Path) -> dict[str, dict[str, Any]]:
    """Return what a run records of its data's splits, by their names."""
    return {name: value for name, value in Run(run).facts["data"].items() if isinstance(value, dict)}


def _shared_data(a: Path, b: Path, split: str) -> dict[str, Any]:
    """Return what both runs record of their split, where they agree."""
    ours, theirs = (_splits(run) for run in (a, b))
    for run, data in ((a, ours), (b, theirs)):
        if split not in data:
            raise unknown_name(f"split of {run}", split, data)
    if ours[split]["fingerprint"] != theirs[split]["fingerprint"]:
        raise SightlineError(f"{split} of {a} and of {b} are not the same images; compare two runs on the same data")
    return ours[split]


def _kept(contender: Contender, split: str, data: str) -> tuple[Samples, SavedGallery] | None:
    """Return what the run's evaluation on that split kept; None if it is of other data or lacks the contender's maps."""
    folder = evaluation_folders(contender.run).get(split)
    if folder is None:
        return None
    evaluation = read_evaluation(folder)
    if evaluation.facts["data_fingerprint"] != data or evaluation.facts["target"] != "predicted":
        return None
    gallery = evaluation.gallery
    return (evaluation.samples, gallery) if gallery and contender.explainer in gallery.maps else None


def _select(gallery: SavedGallery, chosen: Sequence[int], explainer: str) -> Explained:
    """Return the kept images at some places of the split, with their maps."""
    rows = [gallery.index.index(index) for index in chosen]
    return torch.stack([gallery.image(index) for index in chosen]), gallery.maps[explainer][rows].float() / 255


def _explained(
    contender: Contender, dataset: ImageDataset, chosen: Sequence[int], advance: Callable[[int], None]
) -> Explained:
    """Images as the contender's model sees them, and maps made now."""
    loaded = load_run(contender.run)
    explainer = create_explainer(contender.explainer)
    where = layer_for(contender.explainer, loaded.layer)
    seen = Transformed(dataset, eval_transform(loaded.input_spec.size[0]), None)
    images, maps = [], []
    for start in range(0, len(chosen), CHUNK):
        batch = collate([seen[0, index] for index in chosen[start : start + CHUNK]], masks=False).images
        images.append(batch)
        images_there = batch.to(loaded.device)
        maps.append(explainer(loaded.model, images_there, layer=where, input_spec=loaded.input_spec).cpu())
        advance(len(batch))
    return torch.cat(images), torch.cat(maps)


def _draw(chosen: Sequence[int], labels: Sequence[str], looks: Sequence[Explained]) -> Iterator[Drawn]:
    """Draw the images of the pairs; both maps are over the first contender's image, so only the map differs."""
    (images, ours), (_, theirs) = looks
    for row, (index, label) in enumerate(zip(chosen, labels)):
        image = enlarge(images[row], SIDE)
        shown = {"image": image, "a": _over(image, ours[row]), "b": _over(image, theirs[row])}
        yield Drawn(index, label, {part: _jpeg(pixels) for part, pixels in shown.items()})  # type: ignore[misc]


def _over(image: Tensor, saliency: Tensor) -> Tensor:
    """Draw a map (h, w) in [0, 1] over an image (3, H, W)."""
    size = (image.shape[-2], image.shape[-1])
    overlay = show(image[None], resize_maps(saliency[None], size).clamp(0, 1)).overlays["map"]
    assert overlay is not None
    return overlay[0]


def _jpeg(image: Tensor) -> bytes:
    buffer = io.BytesIO()
    F.to_pil_image(image.clamp(0, 1)).save(buffer, format="JPEG", quality=90)
    return buffer.getvalue()
