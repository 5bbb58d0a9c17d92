"""Mixup and CutMix: every pixel of a mixed image says which image it is from, and so what its annotation has to be."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.transforms import v2

import sightline as sl
from sightline._core.seeding import derive_seed
from sightline.data.mixing import Mixer
from sightline.errors import SightlineError
from sightline.objectives.losses import task_loss
from sightline.regions.boxes import tight_box

SIDE = 24
CUTMIX, MIXUP = Mixer(0.0, 1.0, 1.0, 3, seed=0), Mixer(0.4, 0.0, 1.0, 3, seed=0)


def batch(size: int = 6, several: bool = False, by_class: bool = False) -> sl.Batch:
    """Image i has the value i / 10 in channel 0, its object in channel 1; its label is i // 2; every third has no mask."""
    draw = torch.Generator().manual_seed(1)
    images, masks = torch.zeros(size, 3, SIDE, SIDE), torch.zeros(size, SIDE, SIDE, dtype=torch.uint8)
    boxes = torch.zeros(size, 1, 4)
    for i in range(size):
        left, top = torch.randint(0, 10, (2,), generator=draw).tolist()
        boxes[i, 0] = torch.tensor([left, top, left + 9, top + 12])
        masks[i, top : top + 12, left : left + 9] = 1
    images[:, 0] = torch.arange(size)[:, None, None] / 10
    images[:, 1] = masks.float()
    labels = torch.arange(size) // 2
    planes = torch.nn.functional.one_hot(labels, 3)
    return sl.Batch(
        images,
        planes if several else labels,
        masks[:, None] * planes[:, :, None, None].to(torch.uint8) if by_class else masks,
        has_mask=torch.arange(size) % 3 > 0,
        boxes=boxes,
        indices=torch.arange(size) + 40,
        groups=torch.arange(size),
        maps=masks * (1 + torch.arange(size))[:, None, None] / 10,
        avoid=1 - masks,
        has_avoid=torch.arange(size) != 4,
    )


def epochs(mixer: Mixer, given: sl.Batch) -> list[sl.Batch]:
    """Mixed batches, some of which show more of each image itself and some more of the other."""
    found = [mixer(given, epoch) for epoch in range(12)]
    own = {bool(torch.equal(mixed.indices, given.indices)) for mixed in found}
    assert own == {True, False}
    return found


@pytest.mark.parametrize("mixer", [CUTMIX, MIXUP], ids=["cutmix", "mixup"])
@pytest.mark.parametrize("several", [False, True])
def test_images_and_targets_are_those_of_torchvision(mixer: Mixer, several: bool) -> None:
    given = batch(several=several)
    mixed = mixer(given, 3)
    torch.manual_seed(derive_seed(0, 3, *given.indices.tolist(), "mixing"))
    torch.rand(())
    transform = v2.CutMix(alpha=1.0, num_classes=3) if mixer is CUTMIX else v2.MixUp(alpha=0.4, num_classes=3)
    images, targets = transform(given.images, given.labels)
    assert torch.equal(mixed.images, images)
    assert torch.equal(mixed.targets, targets)


def source(mixed: sl.Batch, row: int) -> Tensor:
    """Which image each pixel (H, W) of a mixed image is from."""
    return (mixed.images[row, 0] * 10).round().long()


@pytest.mark.parametrize("by_class", [False, True])
def test_the_mask_of_a_cut_image_is_what_is_seen_of_objects_of_its_label(by_class: bool) -> None:
    given = batch(by_class=by_class)
    for mixed in epochs(CUTMIX, given):
        for row in range(len(given)):
            origin, number = source(mixed, row), int(mixed.indices[row]) - 40
            assert (origin == number).float().mean() >= 0.5
            assert (mixed.labels[row], mixed.groups[row]) == (number // 2, number)
            assert mixed.targets[row, number // 2] >= (origin == number).float().mean() - 1e-6
            assert mixed.has_mask[row] == given.has_mask[number]
            if not mixed.has_mask[row]:
                continue
            mask = mixed.masks[row, number // 2] if by_class else mixed.masks[row]
            seen = mixed.images[row, 1].to(torch.uint8)
            expected = torch.where(origin // 2 == number // 2, seen, 0)
            without = (origin % 3 == 0) & ((origin // 2 == number // 2) | by_class)  # not annotated
            assert torch.equal(mask, torch.where(without, 255, expected))


def test_boxes_maps_and_regions_to_avoid_follow_the_cut_images() -> None:
    given = batch()
    dropped = 0
    for mixed in epochs(CUTMIX, given):
        for row in range(len(given)):
            origin, number = source(mixed, row), int(mixed.indices[row]) - 40
            objects, same = mixed.images[row, 1] == 1, origin // 2 == number // 2
            expected = {tight_box(objects & (origin == each)) for each in origin[objects & same].unique()}
            assert {tuple(box.int().tolist()) for box in mixed.boxes[row][mixed.has_box[row]]} == expected
            dropped += 2 - int(mixed.has_box[row].sum())
            torch.testing.assert_close(mixed.maps[row], objects * same * (origin + 1) / 10)
            assert mixed.has_avoid[row]
            assert torch.equal(mixed.avoid[row], torch.where(origin == 4, 255, (~objects).to(torch.uint8)))
    assert dropped


def test_a_blended_image_has_the_label_and_the_objects_of_the_greater_share() -> None:
    given = batch()
    for mixed in epochs(MIXUP, given):
        for row in range(len(given)):
            number = int(mixed.indices[row]) - 40
            other = (row - 1) % 6 if number == row else row
            assert mixed.labels[row] == number // 2
            share = mixed.targets[row, number // 2].item()
            assert share >= 0.5
            same = number // 2 == other // 2
            assert share == pytest.approx(1) or not same
            ours, theirs = given.masks[number], given.masks[other]
            if not mixed.has_mask[row]:
                continue
            if not same:
                assert torch.equal(mixed.masks[row], ours)
                assert torch.equal(mixed.maps[row], given.maps[number])
                assert mixed.has_box[row].tolist() == [True, False]
            elif given.has_mask[other]:
                assert torch.equal(mixed.masks[row], ours | theirs)
            else:
                assert torch.equal(mixed.masks[row] == 1, ours == 1)
                assert torch.equal(mixed.masks[row] == 255, ours == 0)


def test_with_several_labels_both_images_count() -> None:
    given = batch(several=True, by_class=True)
    for mixed in epochs(CUTMIX, given):
        for row in range(len(given)):
            origin, objects = source(mixed, row), mixed.images[row, 1] == 1
            assert torch.equal(mixed.labels[row], given.labels[row] | given.labels[row - 1])
            assert mixed.has_mask[row] == (given.has_mask[row] | given.has_mask[row - 1])
            for k in range(3):
                expected = (objects & (origin // 2 == k)).to(torch.uint8)
                assert torch.equal(mixed.masks[row, k], torch.where(origin % 3 == 0, 255, expected))


def test_the_draw_depends_on_seed_epoch_and_indices_and_does_not_change_the_generator() -> None:
    given = batch()
    torch.manual_seed(0)
    before = torch.get_rng_state()
    assert torch.equal(CUTMIX(given, 1).images, CUTMIX(given, 1).images)
    assert torch.equal(before, torch.get_rng_state())
    others = [CUTMIX(given, 2), replace(CUTMIX, seed=1)(given, 1), CUTMIX(replace(given, indices=given.indices + 1), 1)]
    assert not any(torch.equal(CUTMIX(given, 1).images, other.images) for other in others)
    both = Mixer(1.0, 1.0, 0.5, 3, seed=0)
    kinds = set()
    for epoch in range(30):
        mixed = both(given, epoch)
        blended = (mixed.images[:, 0] * 10 % 1 > 1e-3).logical_and(mixed.images[:, 0] * 10 % 1 < 1 - 1e-3).any()
        kinds.add("none" if mixed is given else "mixup" if blended else "cutmix")
    assert kinds == {"none", "mixup", "cutmix"}


def test_the_loss_of_soft_targets_is_the_weighted_cross_entropy() -> None:
    logits, targets = torch.tensor([[0.3, -1.0, 2.0]]), torch.tensor([[0.7, 0.3, 0.0]])
    logs = logits.log_softmax(1)[0]
    torch.testing.assert_close(task_loss(logits, torch.tensor([0]), targets=targets)[0], -0.7 * logs[0] - 0.3 * logs[1])
    smooth = targets[0] * 0.9 + 0.1 / 3
    torch.testing.assert_close(task_loss(logits, torch.tensor([0]), 0.1, targets)[0], -(smooth * logs).sum())
    ps = logits[0].sigmoid()
    several = -(targets[0] * ps.log() + (1 - targets[0]) * (1 - ps).log()).mean()
    torch.testing.assert_close(task_loss(logits, torch.tensor([[1, 1, 0]]), targets=targets)[0], several)


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (torch.tensor([[1, 0], [0, 1]]), "targets are"),
        (torch.tensor([[1.0, 0.0]]), "targets are"),
        (torch.tensor([[1.5, -0.5], [0.0, 1.0]]), "targets range"),
        (torch.tensor([[0.5, 0.1], [0.0, 1.0]]), "targets sum to"),
    ],
)
def test_targets_that_are_none_are_rejected(targets: Any, message: str) -> None:
    with pytest.raises(SightlineError, match=message):
        sl.Batch(torch.rand(2, 3, 8, 8), torch.tensor([0, 1]), targets=targets)
