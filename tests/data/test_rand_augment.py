"""RandAugment: the image as torchvision changes it, and what belongs to it moved alike."""

import pytest
import torch
from torchvision import tv_tensors
from torchvision.transforms import v2

from sightline.data.dataset import InMemory, Sample
from sightline.data.loader import create_loader
from sightline.data.transforms import MOVES, RandAugment, Saliency, train_transform
from sightline.errors import SightlineError
from sightline.regions.boxes import tight_box


def marked() -> tuple[tv_tensors.Image, tv_tensors.Mask, Saliency, tv_tensors.BoundingBoxes]:
    """An image that is 200 exactly where its mask is 1, its map 1, and its box."""
    mask = torch.zeros(64, 64, dtype=torch.uint8)
    mask[20:40, 24:50] = 1
    boxes = tv_tensors.BoundingBoxes([[24.0, 20.0, 50.0, 40.0]], format="XYXY", canvas_size=(64, 64))
    return (
        tv_tensors.Image((mask * 200).expand(3, -1, -1).contiguous()),
        tv_tensors.Mask(mask),
        Saliency(mask[None].float()),
        boxes,
    )


@pytest.mark.parametrize("seed", range(6))
def test_the_image_is_that_of_torchvision_under_the_same_seed(seed: int) -> None:
    torch.manual_seed(seed)
    noise = tv_tensors.Image(torch.randint(0, 256, (3, 40, 40), dtype=torch.uint8))
    torch.manual_seed(seed)
    expected = v2.RandAugment(3, 20)(noise)
    torch.manual_seed(seed)
    found, *_ = RandAugment(3, 20)(noise, None, None)
    assert torch.equal(found, expected)


@pytest.mark.parametrize("operation", MOVES)
@pytest.mark.parametrize("seed", [0, 2, 4])  # to either side
def test_mask_map_and_box_go_where_the_image_goes(operation: str, seed: int) -> None:
    augment = RandAugment(1, 25)
    augment._AUGMENTATION_SPACE = {operation: v2.RandAugment._AUGMENTATION_SPACE[operation]}
    torch.manual_seed(seed)
    image, mask, saliency, boxes = augment(*marked())
    assert not torch.equal(mask, marked()[1])
    assert torch.equal(image[0] == 200, mask == 1)
    assert torch.equal(saliency[0] == 1, mask == 1)
    left, top, right, bottom = boxes.clamp(0, 64)[0].tolist()  # the box of a turned box holds the object
    x1, y1, x2, y2 = tight_box(mask == 1)
    assert max(left - x1, top - y1, x2 - right, y2 - bottom) <= 1
    if operation.startswith("Translate"):
        assert (left, top, right, bottom) == (x1, y1, x2, y2)


def test_colors_alone_leave_the_others_and_ignored_pixels_stay() -> None:
    augment = RandAugment(4, 25)
    augment._AUGMENTATION_SPACE = {
        name: entry for name, entry in v2.RandAugment._AUGMENTATION_SPACE.items() if name not in MOVES
    }
    image, mask, saliency, boxes = marked()
    _, *others = augment(image, mask, saliency, boxes)
    assert all(torch.equal(one, other) for one, other in zip(others, (mask, saliency, boxes), strict=True))
    mask[:5] = 255
    for seed in range(5):
        torch.manual_seed(seed)
        _, moved = RandAugment(3, 20)(image, mask)
        assert set(moved.unique().tolist()) <= {0, 1, 255}


def test_the_draw_depends_only_on_seed_epoch_and_index() -> None:
    image, mask, _, boxes = marked()
    samples = [Sample(image, i % 2, mask, i, None, str(i), boxes=boxes) for i in range(6)]
    dataset = InMemory(samples, ["a", "b"], "marked")

    def drawn(epoch: int, **options: int) -> dict[int, tuple[torch.Tensor, ...]]:
        loader = create_loader(dataset, size=64, train=True, augment={"crop": 1.0, "rand_augment": 2}, **options)
        loader.sampler.set_epoch(epoch)
        found = {}
        for batch in loader:
            for row, index in enumerate(batch.indices.tolist()):
                found[index] = (batch.images[row], batch.masks[row], batch.boxes[row])
        return found

    once = drawn(0, batch_size=2)
    for other in (drawn(0, batch_size=3), drawn(0, batch_size=2, num_workers=1)):
        assert all(torch.equal(a, b) for index in once for a, b in zip(once[index], other[index], strict=True))
    assert any(not torch.equal(once[index][1], drawn(1, batch_size=2)[index][1]) for index in once)


@pytest.mark.parametrize("options", [{"rand_augment": -1}, {"rand_augment": 2, "magnitude": 31}])
def test_values_out_of_range_are_rejected(options: dict[str, int]) -> None:
    with pytest.raises(SightlineError, match="rand_augment is"):
        train_transform(32, **options)
