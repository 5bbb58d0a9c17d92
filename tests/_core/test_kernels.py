"""Gaussian blur."""

import pytest
import torch
from torchvision.transforms.v2.functional import gaussian_blur as reference

from sightline._core.kernels import gaussian_blur


@pytest.mark.parametrize(("kernel", "sigma"), [(1, 1.0), (3, 0.8), (11, 5.0), (13, None), (19, 40.0)])
def test_gaussian_blur_equals_torchvisions(kernel: int, sigma: float | None) -> None:
    images = torch.rand(2, 3, 12, 10, dtype=torch.float64)
    expected = reference(images, [kernel, kernel], None if sigma is None else [sigma, sigma])
    assert torch.allclose(gaussian_blur(images, kernel, sigma), expected, atol=1e-6)
    single = gaussian_blur(images[0, 0].float(), kernel, sigma)  # no batch, single precision
    assert torch.allclose(single.double(), expected[0, 0], atol=1e-6)


def test_images_keep_their_memory_format() -> None:
    images = torch.rand(2, 3, 8, 8).to(memory_format=torch.channels_last)
    blurred = gaussian_blur(images, 3)
    assert blurred.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(blurred, gaussian_blur(images.contiguous(), 3))


def test_a_constant_stays_and_the_sum_of_weights_is_one() -> None:
    assert torch.allclose(gaussian_blur(torch.full((1, 9, 9), 0.3), 7), torch.full((1, 9, 9), 0.3))
    point = torch.zeros(1, 15, 15)
    point[0, 7, 7] = 1
    blurred = gaussian_blur(point, 5)
    assert blurred.sum().item() == pytest.approx(1)
    assert torch.equal(blurred[0], blurred[0].T)
    assert (blurred[0, 5:10, 5:10] > 0).all()
    assert blurred[0, 4].abs().max() == 0
