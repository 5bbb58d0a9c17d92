"""Choosing what to label next: from batches with a model, or after a trained run."""

from collections.abc import Iterable
from pathlib import Path

import torch
from torch import nn

from sightline._core.checks import check_count
from sightline.acquisition.base import Pool, QueryStrategy, Selection
from sightline.acquisition.registry import QUERY_STRATEGIES
from sightline.data import Batch, ImageDataset
from sightline.data.file_dataset import FileDataset, Record
from sightline.data.files import locate
from sightline.data.image_listing import list_images
from sightline.datasets.derived.subset import Listed, read_list
from sightline.errors import SightlineError
from sightline.network.input_spec import InputSpec
from sightline.network.layers import LayerChoice
from sightline.runs import Run, load_run


def select_samples(
    strategy: str | QueryStrategy,
    model: nn.Module,
    images: Iterable[Batch],
    count: int,
    known: Iterable[Batch] | None = None,
    *,
    layer: LayerChoice | None = None,
    input_spec: InputSpec | None = None,
    seed: int = 0,
    round: int = 0,
) -> Selection:
    """Which of a pool's images to label next; where fewer than `count` are left, all of them.

    Args:
        strategy: a query strategy or its name.
        model: a classifier that returns logits (B, K).
        images: batches of the pool, in the same order each time they are gone through; labels are ignored.
        count: how many are wanted.
        known: batches of the images that the model learned from; None = not available, and then `coreset` cannot choose.
        layer: the target layer of explainers.
        input_spec: normalises images in [0, 1].
        seed: of everything drawn.
        round: how often images have been chosen before, from 0 on.

    Raises:
        SightlineError: there is no such strategy, count is not positive, or the pool is empty.
    """
    chosen = QUERY_STRATEGIES.create(strategy) if isinstance(strategy, str) else strategy
    pool = Pool(model, images, known, layer=layer, input_spec=input_spec, seed=seed, round=round)
    check_count(count=count)
    if not len(pool):
        raise SightlineError("the pool is empty; there is nothing left to label")
    return chosen.select(pool, min(count, len(pool)))


def select_from_run(
    run: Run,
    strategy: str | QueryStrategy,
    count: int,
    *,
    pool: str | Path | None = None,
    device: str | torch.device | None = None,
) -> list[Listed]:
    """Which images to label next, by the model of a finished run.

    Args:
        run: trained on images with labels; its best weights count where its recipe selects some, else the last.
        strategy: a query strategy or its name.
        count: how many are wanted; where fewer are left, all of them.
        pool: a folder of images, which need no labels; None = those of the run's training split that its `train_samples`
            leaves out, or names with a pseudo-label.
        device: None = a GPU where there is one.

    Returns:
        A line for each image, the one that is wanted most first, with its place in the training split or in the folder's
        sorted list; then the pseudo-labeled images, for strategies that make some.

    Raises:
        SightlineError: see `select_samples`; the run is not finished, nothing says which images it was trained on, none is
            left, or images can have several labels.
    """
    loaded = load_run(run, device)
    recipe, train = loaded.recipe, loaded.splits["train"]
    train.check_single_label("choosing what to label")
    if recipe.train_fraction < 1:
        raise SightlineError(
            f"{run.path} has train_fraction {recipe.train_fraction}; give it a list of its images as train_samples"
        )
    lines = [] if recipe.train_samples is None else read_list(locate(recipe.train_samples, "train_samples"))
    known = [line.index for line in lines if not line.pseudo_label] if lines else list(range(len(train)))
    source, places = (
        (train, sorted(set(range(len(train))) - set(known))) if pool is None else _folder(pool, train.classes)
    )
    if not places:
        raise SightlineError(
            f"{run.path} was trained on all its images; give a pool, a folder of images without labels"
        )

    number = max((line.round for line in lines), default=0) + 1
    selection = select_samples(
        strategy,
        loaded.model,
        loaded.loader(source, indices=places),
        count,
        loaded.loader(train, indices=known),
        layer=loaded.layer,
        input_spec=loaded.input_spec,
        seed=recipe.seed,
        round=number - 1,
    )
    found = [(places[place], "", score) for place, score in zip(selection.places, selection.scores)]
    found += [
        (places[place], train.classes[pseudo_label], None) for place, pseudo_label in selection.pseudo_labels.items()
    ]
    return [Listed(place, source.path(place), pseudo_label, number, score) for place, pseudo_label, score in found]


def _folder(folder: str | Path, classes: list[str]) -> tuple[ImageDataset, list[int]]:
    """Return the images of a folder, at any depth; all get the first class as a label, which nothing reads."""
    root = locate(folder, "pool")
    paths = list_images(root)
    if not paths:
        raise SightlineError(f"pool {folder} holds no image; name a folder with image files")
    return FileDataset([Record(path, 0) for path in paths], classes, root), list(range(len(paths)))
