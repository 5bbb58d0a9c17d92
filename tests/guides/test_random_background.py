"""Objects on each other's backgrounds."""

import pytest
import torch

import sightline as sl
from networks import TinyCNN
from sightline.errors import SightlineError
from sightline.guides.random_background import paint_over


def two_scenes() -> sl.Batch:
    """Four images: a bright square object on the constant colours 0.1, 0.2, 0.3, 0.4."""
    images = torch.arange(1, 5).div(10)[:, None, None, None].expand(4, 3, 16, 16).clone()
    masks = torch.zeros(4, 16, 16, dtype=torch.uint8)
    masks[:, 4:8, 4:8] = 1
    images[:, :, 4:8, 4:8] = 1.0
    return sl.Batch(images, torch.tensor([0, 1, 2, 0]), masks=masks, indices=torch.arange(4))


def objective() -> sl.Objective:
    return sl.Objective(TinyCNN(), sl.RandomBackground())


def test_objects_stay_and_backgrounds_are_exchanged() -> None:
    batch, step = two_scenes(), objective()
    changed = sl.RandomBackground().transform(batch, step)
    assert torch.equal(changed.images[:, :, 4:8, 4:8], batch.images[:, :, 4:8, 4:8])
    colours = changed.images[:, 0, 0, 0]
    assert sorted(colours.tolist()) == pytest.approx([0.1, 0.2, 0.3, 0.4])
    assert not torch.equal(colours, batch.images[:, 0, 0, 0])
    # Nothing of the giver's object is left, and its place shows the giver's colour.
    background = changed.images[:, 0].clone()
    background[:, 4:8, 4:8] = colours[:, None, None]
    torch.testing.assert_close(background, colours[:, None, None].expand(4, 16, 16), atol=2e-3, rtol=0)


def test_the_pairing_depends_only_on_seed_epoch_and_indices() -> None:
    batch, step = two_scenes(), objective()

    def colours(seed: int = 0, epoch: int = 0) -> list[float]:
        torch.manual_seed(torch.randint(1000, ()).item())
        step.epoch = epoch
        return sl.RandomBackground(seed=seed).transform(batch, step).images[:, 0, 0, 0].tolist()

    assert colours() == colours()
    assert len({tuple(colours(epoch=e)) for e in range(8)}) > 1
    assert len({tuple(colours(seed=s)) for s in range(8)}) > 1


def test_only_training_batches_and_masked_images_change() -> None:
    batch, step = two_scenes(), objective()
    batch.has_mask = torch.tensor([True, False, True, False])
    changed = sl.RandomBackground().transform(batch, step)
    assert torch.equal(changed.images[[1, 3]], batch.images[[1, 3]])
    step.eval()
    assert sl.RandomBackground().transform(batch, step) is batch
    step.train()
    assert torch.equal(sl.RandomBackground(probability=0.0).transform(batch, step).images, batch.images)


def test_paint_over_fills_from_the_surroundings() -> None:
    images = torch.zeros(1, 1, 20, 20)
    images[..., 10:] = 1.0
    mask = torch.zeros(1, 1, 20, 20)
    mask[..., 8:12, 2:6] = 1
    images[mask.bool()] = 0.5
    filled = paint_over(images, mask)
    assert filled[..., 8:12, 2:6].max() < 0.3
    assert torch.equal(filled[mask == 0], images[mask == 0])


def test_a_probability_outside_its_range_raises() -> None:
    with pytest.raises(SightlineError, match="probability is 2"):
        sl.RandomBackground(probability=2)
