import pytest
import torch
from torch.nn import functional as F
from torchvision import tv_tensors

from sightline.data.transforms import eval_transform, train_transform
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
def test_values_out_of_range(options: dict[str, float]) -> None:
    with pytest.raises(SightlineError, match=list(options)[-1]):
        train_transform(**options)
