"""From a model, images and marks to a mended model."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from torch import nn

from sightline._core.checks import check_count
from sightline.data.dataset import ImageDataset
from sightline.errors import SightlineError
from sightline.fixing.mending.bank import Bank
from sightline.fixing.mending.choosing import choose
from sightline.fixing.mending.finding import cut_out_all, find_avoided, find_objects
from sightline.fixing.mending.judging import (
    UNCHANGED,
    chance,
    gain,
    judge,
    judged_images,
    other_order,
    predicted_images,
)
from sightline.fixing.mending.marked import MarkedImages
from sightline.fixing.mending.pretrained import Pretrained, hub_name, load_pretrained
from sightline.fixing.mending.trunk import Trunk
from sightline.fixing.protocol import Figure, Progress
from sightline.fixing.reading import Given
from sightline.fixing.result import Candidate, Fixed
from sightline.models.opening import OpenedModel

STEPS = ("read images", "find objects", "fit heads")
LEAST_REGIONS = 4  # regions to avoid, from which on they are looked for in other images
FOUND_AGAIN = 0.3  # IoU of given regions with those that their other half finds, from which on found ones are taken
STEADY = 0.9  # IoU of a found mask with an earlier one, from which on the earlier one stays


@dataclass(frozen=True)
class Networks:
    """The networks whose heads can be fitted.

    Attributes:
        opened: the given model.
        before: the same network with pretrained weights; None = there is none.
        trunks: the given network, and the pretrained one.
        notes: what was loaded, or why not.
    """

    opened: OpenedModel
    before: Pretrained | None
    trunks: list[Trunk]
    notes: list[str]


def open_networks(opened: OpenedModel, reference: str | None, pretrained: str | None) -> Networks:
    """Copy the given model, and load the same network with pretrained weights where they can be had.

    Args:
        opened: the given model.
        reference: the name that it was opened by; None = it was given as a module.
        pretrained: weights, `none`, or None for those of the library.

    Raises:
        SightlineError: the model has no linear head, or the named weights are not available or do not fit.
    """
    check_count(32, size=opened.input_spec.size[0])
    notes: list[str] = []
    trunks = [Trunk("the given network", opened.model, opened.input_spec)]
    before = _load_before(opened.model, reference, pretrained, notes)
    if before is not None:
        trunks.append(Trunk(f"the network with {before.name}", before.model, opened.input_spec))
    return Networks(opened, before, trunks, notes)


def open_bank(networks: Networks, images: ImageDataset, seed: int) -> Bank:
    """Return where the features of images are kept, for one fit or more."""
    return Bank(images, networks.trunks, networks.opened.input_spec.size[0], seed)


def mend(
    networks: Networks,
    given: Given,
    seed: int = 0,
    progress: Progress | None = None,
    bars: bool = False,
    bank: Bank | None = None,
    found: Mapping[int, np.ndarray] | None = None,
) -> Fixed:
    """Fit the heads of the networks on the given images and marks, and keep the best.

    Args:
        networks: from `open_networks`.
        given: images with masks and regions to avoid, some or none.
        seed: of crops, partners and folds.
        progress: is told what is done.
        bars: show bars.
        bank: of these networks and images, which keeps features for the next fit; None = a new one.
        found: masks of an earlier fit; see `steady`.
    """
    opened = networks.opened
    notes = [*opened.notes, *networks.notes, *given.notes]
    seconds: dict[str, float] = {}

    @contextmanager
    def step(name: str) -> Iterator[None]:
        if progress is not None:
            progress(name, STEPS.index(name) / len(STEPS))
        started = time.perf_counter()
        yield
        seconds[name] = round(time.perf_counter() - started, 2)

    if bank is None:
        with step("read images"):
            bank = open_bank(networks, given.images, seed)
    with step("find objects"):
        objects = {**steady(find_masks(given, networks, bank, notes, bars), found or {}), **given.objects}
        avoid = find_regions(given, networks, bank, notes)
    with step("fit heads"):
        marked = MarkedImages(bank.images, objects, avoid)
        mended = choose(bank, marked, given.marked(), opened.count, seed, bars)
    if opened.classes is None and (note := other_order(mended, given.classes)) is not None:
        notes.append(note)
    if not (predicted := predicted_images(mended, given.drawn())).all():
        notes.append(_left_out(given, int((~predicted).sum())))
    where, which = judged_images(mended, given.drawn())
    table = judge(mended, where)
    difference, guessing = gain(mended, where), chance(mended, where)
    above_chance = table[0].interval is not None and table[0].interval[0] > guessing
    return Fixed(
        model=mended.model,
        input_spec=opened.input_spec,
        classes=given.classes,
        helped=difference[1] > 0 and above_chance,
        summary=_summary(table, difference, None if above_chance else guessing, which, mended.chosen),
        table=table,
        chosen=mended.chosen,
        candidates=mended.candidates,
        masks={given.names[index]: mask for index, mask in objects.items()},
        notes=notes,
        seconds=seconds,
    )


def find_masks(given: Given, networks: Networks, bank: Bank, notes: list[str], bars: bool) -> dict[int, np.ndarray]:
    """Return a mask for every image: the given ones, and found ones for the others.

    Nothing is found where regions to avoid are given and no masks: then all the rest of an image counts.
    """
    known, before = dict(given.objects), networks.before
    spec, last = networks.opened.input_spec, len(networks.trunks) - 1
    if len(known) == len(given.images) or (given.avoid and not known):
        return known
    can_find = networks.trunks[last].can_find
    if not known:
        saliency = None if before is None or before.general is None else (before.general, spec)
        known = cut_out_all(given.images, range(len(given.images)), saliency, bars)
        told = "in the middle of the image" if saliency is None else "around the saliency map of the pretrained network"
        notes.append(f"no masks were given: GrabCut found objects {told}")
        return find_objects(bank.fine(last), known, spec.size[0]) if can_find else known
    rest = len(given.images) - len(known)
    if not can_find:
        notes.append(f"{rest} images have no mask, and none can be found with this network")
        return known
    found = find_objects(bank.fine(last), known, spec.size[0])
    notes.append(f"masks of {rest} images were found from the {len(known)} given ones")
    return {**found, **known}


def find_regions(given: Given, networks: Networks, bank: Bank, notes: list[str]) -> Mapping[int, np.ndarray]:
    """Return the given regions to avoid, and found ones of the images that nobody marked.

    Where masks are given too, the whole background is exchanged, and nothing is looked for. Nothing is taken either where the
    given regions are not found again.
    """
    rest, last = len(given.images) - int(given.drawn().sum()), len(networks.trunks) - 1
    shown = {index: region for index, region in given.avoid.items() if region.any()}
    if given.objects or not rest or len(shown) < LEAST_REGIONS or not networks.trunks[last].can_find:
        return given.avoid
    found, overlap = find_avoided(bank.fine(last), shown, networks.opened.input_spec.size[0])
    found = {index: region for index, region in found.items() if index not in given.avoid}
    told = f"(IoU {overlap:.2f} with given regions that were left out for this check"
    if overlap < FOUND_AGAIN:
        notes.append(
            f"regions to avoid cannot be found in the {rest} other images {told}, at least {FOUND_AGAIN} is needed)"
        )
        return given.avoid
    notes.append(f"regions to avoid were found in {len(found)} of {rest} other images {told})")
    return {**found, **given.avoid}


def steady(masks: Mapping[int, np.ndarray], earlier: Mapping[int, np.ndarray]) -> dict[int, np.ndarray]:
    """Return masks, but the earlier one of an image where it is nearly the same: then its features need no new pass."""

    def one(index: int, mask: np.ndarray) -> np.ndarray:
        other = earlier.get(index)
        if other is None or other.shape != mask.shape:
            return mask
        first, second = mask == 1, other == 1
        union = (first | second).sum()
        return other if (first & second).sum() >= STEADY * union else mask

    return {index: one(index, mask) for index, mask in masks.items()}


def _load_before(
    model: nn.Module, reference: str | None, pretrained: str | None, notes: list[str]
) -> Pretrained | None:
    """Return the network before its refit, or None, with a note that says why."""
    if pretrained == "none":
        return None
    if pretrained is not None:
        return load_pretrained(model, pretrained)
    name = hub_name(model, reference)
    if name is None:
        notes.append("no pretrained weights of this architecture are known; name some by pretrained")
        return None
    try:
        return load_pretrained(model, name)
    except SightlineError as error:
        notes.append(f"only the given network was tried, because {error}")
        return None


def _left_out(given: Given, count: int) -> str:
    """Return a note on images that the comparison leaves out because a class has too few images for cross-validation."""
    sizes = given.images.labels.bincount(minlength=len(given.images.classes)).tolist()
    single = [name for name, size in zip(given.images.classes, sizes) if size == 1]
    named = f"; the only image of a class is among them: {', '.join(single[:5])}. Add images to it" if single else ""
    return f"{count} images are left out of the comparison, because no head without them knows all classes{named}"


def _summary(
    table: list[Figure], difference: tuple[float, float, float], guessing: float | None, which: str, chosen: Candidate
) -> str:
    """Return the result in words; `guessing` is the accuracy of guessing where the mended model is not better than that."""
    first = table[0]
    change, low, high = (f"{100 * value:+.1f}" for value in difference)
    change_words = f"({change} points, 95 % interval {low} to {high}), on {which}"
    pooling = "an attention map that was fitted to the masks" if chosen.attention else "their mean"
    head = f"The new head uses the features of {chosen.trunk}, pooled by {pooling}."
    rest = [f"{row.before:.1%} before and {row.after:.1%} after" for row in table if row.name == UNCHANGED]
    unchanged = f" With unchanged images it is {rest[0]}." if rest else ""
    if difference[1] > 0 and guessing is None:
        return (
            f"With the background or the mark exchanged, the accuracy rises from {first.before:.1%} to {first.after:.1%} "
            f"{change_words}.{unchanged} {head}"
        )
    why = (
        "This is not a significant gain" if guessing is None else f"Guessing the most common class gives {guessing:.1%}"
    )
    return (
        f"The refit did not help: with the background or the mark exchanged, the accuracy is {first.before:.1%} before and "
        f"{first.after:.1%} after {change_words}. {why}.{unchanged} Mark more images, give better masks, or "
        f"name pretrained weights. {head}"
    )
