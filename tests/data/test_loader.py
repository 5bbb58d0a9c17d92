from collections.abc import Callable

import pytest
import torch

from sightline.data import Batch
from sightline.data.dataset import InMemory, Sample
from sightline.data.loader import EpochSampler, create_loader
from sightline.errors import SightlineError


def batches(dataset: InMemory, epoch: int = 0, **options: object) -> list[Batch]:
    settings = {"size": 16, "batch_size": 4, "train": True, "augment": {"crop": 0.3, "jitter": 0.3}, "seed": 5}
    made = create_loader(dataset, **{**settings, **options})
    made.sampler.set_epoch(epoch)
    return list(made)


def by_index(found: list[Batch]) -> dict[int, torch.Tensor]:
    return {int(i): image for batch in found for i, image in zip(batch.indices, batch.images)}


def test_batches_hold_what_they_promise(make_objects: Callable[..., InMemory]) -> None:
    found = batches(make_objects(10))
    assert [len(b) for b in found] == [4, 4, 2]
    for batch in found:
        assert isinstance(batch, Batch)
        assert type(batch.images) is torch.Tensor  # no tv_tensor leaves the loader
        assert type(batch.masks) is torch.Tensor
        assert batch.images.dtype == torch.float32
        assert 0 <= batch.images.min() <= batch.images.max() <= 1
        assert batch.masks.dtype == torch.uint8
        assert batch.has_mask.all()
        assert batch.groups is None
        assert torch.equal(batch.labels, batch.indices % 2)
    assert sorted(by_index(found)) == list(range(10))


def test_workers_change_nothing(make_objects: Callable[..., InMemory]) -> None:
    dataset = make_objects(10)
    for one, other in zip(batches(dataset, 3, num_workers=0), batches(dataset, 3, num_workers=2), strict=True):
        assert torch.equal(one.indices, other.indices)
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.masks, other.masks)


def test_epochs_and_seeds_change_order_and_augmentation(make_objects: Callable[..., InMemory]) -> None:
    dataset = make_objects(10)
    first = batches(dataset, 0)
    for other in (batches(dataset, 1), batches(dataset, 0, seed=6)):
        assert [b.indices.tolist() for b in first] != [b.indices.tolist() for b in other]
        assert all((by_index(first)[i] != by_index(other)[i]).any() for i in range(10))
    again = batches(dataset, 0)
    assert all(torch.equal(a.images, b.images) for a, b in zip(first, again))


def test_augmentation_of_an_image_does_not_depend_on_the_batch(make_objects: Callable[..., InMemory]) -> None:
    dataset = make_objects(10)
    one, other = by_index(batches(dataset, batch_size=3)), by_index(batches(dataset, batch_size=10))
    assert all(torch.equal(one[i], other[i]) for i in range(10))


def test_the_global_generator_is_unchanged(make_objects: Callable[..., InMemory]) -> None:
    dataset = make_objects(4)
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    _ = create_loader(dataset, size=16, batch_size=4, train=True).dataset[(0, 1)]
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("world_size", [2, 3])
def test_processes_share_an_epoch(world_size: int) -> None:
    samplers = [EpochSampler(10, train=True, seed=1, rank=r, world_size=world_size) for r in range(world_size)]
    shares = [[index for _, index in sampler] for sampler in samplers]
    assert len({len(share) for share in shares}) == 1
    assert [len(share) for share in shares] == [len(s) for s in samplers]
    assert {i for share in shares for i in share} == set(range(10))
    whole = [index for _, index in EpochSampler(10, train=True, seed=1)]
    assert sorted(i for share in shares for i in share[:2]) == sorted(whole[: 2 * world_size])  # one step's batches


def test_more_processes_than_images_all_draw_as_many() -> None:
    shares = [list(EpochSampler(2, train=True, rank=r, world_size=5)) for r in range(5)]
    assert [len(s) for s in shares] == [1] * 5


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_evaluation_sees_each_image_once_in_order(world_size: int) -> None:
    shares = [list(EpochSampler(10, train=False, rank=r, world_size=world_size)) for r in range(world_size)]
    assert sorted(index for share in shares for _, index in share) == list(range(10))
    assert all(share == sorted(share) for share in shares)


def test_missing_masks_are_flagged_and_ignored(make_objects: Callable[..., InMemory]) -> None:
    with_mask, without = make_objects(2), make_objects(2)
    samples = [with_mask[0], Sample(without[1].image, 1, None, 1, None, "bare")]
    dataset = InMemory(samples, ["a", "b"], "mixed")
    (batch,) = batches(dataset, train=False, batch_size=2)
    assert batch.has_mask.tolist() == [True, False]
    assert (batch.masks[1] == 255).all()
    alone = batches(dataset, train=False, batch_size=1)[1]
    assert alone.masks is not None  # the tensor is there on every batch of a data set with masks
    assert not alone.has_mask.any()


def test_a_data_set_without_masks_gives_none(make_scenes: Callable[..., InMemory]) -> None:
    assert all(b.masks is None and b.has_mask is None for b in batches(make_scenes()))


def test_cache_loads_once_and_keeps_the_pixels(
    make_objects: Callable[..., InMemory], monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh, cached = make_objects(6), make_objects(6)
    expected = batches(fresh, train=False)
    loads = []
    load = InMemory.load
    monkeypatch.setattr(InMemory, "load", lambda self, index: loads.append(index) or load(self, index))
    for _ in range(2):
        found = batches(cached, train=False, cache=True)
    assert sorted(loads) == list(range(6))
    assert all(torch.equal(a.images, b.images) for a, b in zip(expected, found))  # 24 px is below 1.5 x 16: not scaled
    assert min(make_objects(2).keep_in_memory(side=12)[0].image.shape[-2:]) == 12


def test_create_loader_invalid_options_raise(make_objects: Callable[..., InMemory]) -> None:
    dataset = make_objects(3)
    with pytest.raises(SightlineError, match=r"'flop'.*did you mean 'flip'"):
        batches(dataset, augment={"flop": True})
    with pytest.raises(SightlineError, match="batch_size is 0"):
        batches(dataset, batch_size=0)
    with pytest.raises(SightlineError, match="only 3 images"):
        batches(dataset, batch_size=4, drop_last=True)
    with pytest.raises(SightlineError, match="rank is 2 of world_size 2"):
        batches(dataset, rank=2, world_size=2)
