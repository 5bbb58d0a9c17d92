"""Checks of tensors that callers pass, and the type that results are computed in."""

from typing import Any

import pytest
import torch

from sightline import SightlineError
from sightline._core.tensors import (
    at_least_float32,
    check_finite,
    check_images,
    check_pixels,
    check_shape,
    check_unit_range,
)


def test_check_shape_accepted_shapes_pass() -> None:
    check_shape(torch.zeros(3, 7, 4), "boxes", (3, "N", 4))
    check_shape(torch.zeros(3, 5), "masks", (2, 5), (3, "K"))
    check_shape(torch.zeros(3, 0), "flags", (3, 0))
    check_shape(torch.zeros(3, dtype=torch.int64), "labels", (3,), dtype=torch.int64)


@pytest.mark.parametrize(
    ("tensor", "options", "message"),
    [
        ([0.0], {}, r"labels is a list; expected a tensor \(3,\) or \(3, K\)$"),
        (torch.zeros(2), {}, r"labels have shape \(2,\); expected \(3,\) or \(3, K\)$"),
        (torch.zeros(3, 0), {}, r"expected \(3,\) or \(3, K\), none of them 0$"),
        (torch.zeros(3), {"dtype": torch.int64}, r"\(3,\) and dtype torch.float32; expected \(3,\) or \(3, K\) int64$"),
        (torch.zeros(()), {"meaning": "one an image"}, r"shape \(\); expected \(3,\) or \(3, K\), one an image$"),
    ],
)
def test_check_shape_other_values_raise(tensor: object, options: dict[str, Any], message: str) -> None:
    with pytest.raises(SightlineError, match=message):
        check_shape(tensor, "labels", (3,), (3, "K"), **options)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([[0.0]], "images is a list"),
        (torch.rand(3, 4, 4), r"images have shape \(3, 4, 4\)"),
        (torch.rand(0, 3, 4, 4), "none of them 0"),
        (torch.zeros(2, 3, 4, 4, dtype=torch.uint8), "dtype torch.uint8; expected a float type"),
        (torch.tensor([0.0, torch.nan, torch.inf])[:, None, None, None], r"in images \(images \[1, 2\] of the batch\)"),
    ],
)
def test_check_images_invalid_raises_what_is_wrong(images: torch.Tensor, message: str) -> None:
    with pytest.raises(SightlineError, match=message):
        check_images(images)


def test_check_images_any_finite_values_pass() -> None:
    check_images(torch.tensor([-7.0, 300.0])[:, None, None, None])


@pytest.mark.parametrize("value", [-0.01, 1.01])
def test_check_pixels_outside_unit_range_raises_argument_and_reason(value: float) -> None:
    with pytest.raises(SightlineError, match=r"target range over .*; expected \[0, 1\] because noise is added here"):
        check_pixels(torch.full((1, 3, 2, 2), value), "target", change="noise is added")


def test_check_unit_range_rounding_and_nan_pass() -> None:
    check_unit_range(torch.tensor([-1e-5, 1 + 1e-5]), "maps")
    check_unit_range(torch.tensor([0.5, torch.nan]), "maps")


def test_check_finite_rows_of_any_shape_are_named() -> None:
    check_finite(torch.zeros(3), "scores")
    with pytest.raises(SightlineError, match=r"NaN or infinity in scores \(images \[2\] of the batch\); lower it$"):
        check_finite(torch.tensor([[0.0, 1], [2, 3], [torch.inf, 0]]), "scores", "lower it")


def test_at_least_float32_keeps_wider_types() -> None:
    types = [
        at_least_float32(torch.zeros(1, dtype=dtype)).dtype for dtype in (torch.float16, torch.float32, torch.double)
    ]
    assert types == [torch.float32, torch.float32, torch.float64]
