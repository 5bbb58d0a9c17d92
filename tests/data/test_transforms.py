import pytest
import torch
from torch.nn import functional as F
from torchvision import tv_tensors

from sightline.data.dataset import InMemory, Sample
from sightline.data.transforms import RandomResizedCrop, Resize, eval_transform, resize_mask, train_transform
from sightline.errors import SightlineError


def marked() -> tuple[tv_tensors.Image, tv_tensors.Mask]:
    """An image that is white exactly where its mask is 1."""
    mask = torch.zeros(60, 90, dtype=torch.uint8)
    mask[10:35, 50:85] = 1
    return tv_tensors.Image((mask * 255).expand(3, -1, -1).contiguous()), tv_tensors.Mask(mask)


@pytest.mark.parametrize("seed", range(8))
def test_image_and_mask_move_together(seed: int) -> None:
    torch.manual_seed(seed)
    image, mask = train_transform(48, crop=0.4)(*marked())
    assert image.shape == (3, 48, 48)
    assert mask.shape == (48, 48)
    inside = (mask == 1).float()[None]
    clear = (F.max_pool2d(inside, 5, 1, 2) == -F.max_pool2d(-inside, 5, 1, 2))[0]  # two pixels or more off the border
    assert torch.equal(image[0][clear] > 0.5, mask[clear] == 1)
    assert clear.float().mean() > 0.5
    assert 0 < inside.mean() < 1


def test_a_flip_alone_is_exact() -> None:
    image, mask = marked()
    image, mask = image[..., :60], mask[..., :60]
    image, mask = tv_tensors.Image(image), tv_tensors.Mask(mask)
    results = []
    for seed in range(12):
        torch.manual_seed(seed)
        out, out_mask = train_transform(60, crop=1.0)(image, mask)
        assert torch.equal(out[0] > 0.5, out_mask == 1)
        results.append(torch.equal(out_mask, mask))
    assert {True, False} == set(results)  # flipped at times, and at times not


def test_evaluation_keeps_the_centre_square() -> None:
    image, mask = marked()
    out, out_mask = eval_transform(60)(image, mask)
    assert torch.equal(out_mask, mask[:, 15:75])
    torch.testing.assert_close(out.as_subclass(torch.Tensor), image[..., 15:75].as_subclass(torch.Tensor) / 255)


def test_ignored_pixels_stay_ignored_and_values_are_not_mixed() -> None:
    image, mask = marked()
    mask = mask.clone()
    mask[40:, :] = 255
    _, out = train_transform(47, crop=0.9)(image, tv_tensors.Mask(mask))
    assert set(out.unique().tolist()) <= {0, 1, 255}
    assert 255 in out


def test_an_image_without_mask_passes() -> None:
    image, _ = marked()
    out, mask = train_transform(32)(image, None)
    assert mask is None
    assert out.dtype == torch.float32


def test_jitter_changes_colours_and_not_the_mask() -> None:
    image, mask = marked()
    image = tv_tensors.Image(image // 2)
    torch.manual_seed(3)
    out, out_mask = train_transform(60, crop=1.0, flip=False, jitter=0.5)(image, mask)
    assert torch.equal(out_mask, mask[:, 15:75])
    assert (out - image[..., 15:75] / 255).abs().max() > 0.05
    assert out.min() >= 0
    assert out.max() <= 1


@pytest.mark.parametrize(
    "options", [{"size": 0}, {"size": 8, "crop": 0}, {"size": 8, "crop": 1.5}, {"size": 8, "jitter": 1}]
)
def test_train_transform_values_out_of_range_raise(options: dict[str, float]) -> None:
    with pytest.raises(SightlineError, match=list(options)[-1]):
        train_transform(**options)


def under_centers(mask: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """The pixels of a mask (..., H, W) that are under the centers of a grid's pixels."""
    rows = ((torch.arange(height) + 0.5) * mask.shape[-2] / height).long()
    columns = ((torch.arange(width) + 0.5) * mask.shape[-1] / width).long()
    return mask[..., rows[:, None], columns]


@pytest.mark.parametrize("size", [7, 24, 33, 47, 64, 100])
@pytest.mark.parametrize("planes", [(), (3,)])
def test_a_mask_is_resized_by_the_centers_of_its_pixels(size: int, planes: tuple[int, ...]) -> None:
    mask = tv_tensors.Mask(torch.randint(0, 2, (*planes, 48, 48), dtype=torch.uint8))
    expected = under_centers(mask.as_subclass(torch.Tensor), size, size)
    image = tv_tensors.Image(torch.zeros(3, 48, 48, dtype=torch.uint8))
    assert torch.equal(eval_transform(size)(image, mask)[1].as_subclass(torch.Tensor), expected)
    assert torch.equal(RandomResizedCrop(size, (1, 1), (1, 1))(image, mask)[1].as_subclass(torch.Tensor), expected)
    assert all(isinstance(move(mask), tv_tensors.Mask) for move in (Resize(size), RandomResizedCrop(size)))
    assert torch.equal(resize_mask(mask.as_subclass(torch.Tensor), [size, size]), expected)


@pytest.mark.parametrize("size", [11, 23, 37])
def test_a_resized_mask_stays_where_its_image_is(size: int) -> None:
    """The center of the object moves with the image to a tenth of a pixel, on average over places."""
    shifts = []
    for left in range(10, 50):
        mask = tv_tensors.Mask(torch.zeros(90, 90, dtype=torch.uint8))
        mask[left : left + 30, left : left + 30] = 1
        columns = (Resize(size)(mask) == 1).any(0).nonzero()[:, 0].double()
        shifts.append((columns.mean() + 0.5) * 90 / size - (left + 15))
    assert abs(torch.stack(shifts).mean()) * size / 90 < 0.1


def test_masks_that_are_kept_in_memory_stay_where_their_images_are() -> None:
    mask = torch.randint(0, 2, (40, 60), dtype=torch.uint8)
    image = tv_tensors.Image(torch.zeros(3, 40, 60, dtype=torch.uint8))
    samples = [Sample(image, label, tv_tensors.Mask(mask), label, None, "") for label in (0, 1)]
    kept = InMemory(samples, ["a", "b"], "x").keep_in_memory(side=27)[0].mask
    assert torch.equal(kept.as_subclass(torch.Tensor), under_centers(mask, *kept.shape))
