"""Maskers: what is shown instead of hidden pixels."""

from collections.abc import Sequence
from typing import Literal, Protocol, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from sightline._core.kernels import gaussian_blur, odd_kernel
from sightline._core.optional import requires_extra
from sightline._core.tensors import check_finite, check_pixels, check_unit_range
from sightline.errors import SightlineError
from sightline.network.input_spec import InputSpec, to_inputs

NamedMasker = Literal["blur", "box_blur", "inpaint_telea", "inpaint_ns"]
Masker = NamedMasker | float | Sequence[float] | Tensor

BLUR = 128 / 224  # shap's examples blur with 128 of 224 pixels


class MaskedInputs(Protocol):
    """Inputs with parts hidden."""

    def __call__(self, shown: Tensor, images: Tensor) -> Tensor:
        """Return inputs (n * e, C, H, W) for the shown parts (n, e, C, H, W) of the images (n,), e times."""


def check_masker(masker: Masker, blur: int | float | None) -> None:
    """Raise if the masker's name is unknown, or the blur cannot be a kernel."""
    if isinstance(masker, str) and masker not in get_args(NamedMasker):
        raise SightlineError(
            f"masker is {masker!r}; expected {', '.join(map(repr, get_args(NamedMasker)))}, a number, one per channel, "
            "or an image"
        )
    odd_kernel(blur, 224, BLUR)


def masked_inputs(
    images: Tensor, inputs: Tensor, input_spec: InputSpec | None, masker: Masker, blur: int | float | None
) -> MaskedInputs:
    """Return the function that hides parts of images.

    Args:
        images: (B, C, H, W), in [0, 1] with an input spec.
        inputs: (B, C, H, W), the same as the model takes them.
        input_spec: Normalization of the images; None where they are the inputs.
        masker: What is shown instead of hidden pixels, in the units of `images`.
        blur: Kernel of the blurs (see `owen_values`).
    """
    if isinstance(masker, str) and masker.startswith("inpaint"):
        return _Inpainted(images, input_spec, masker)
    if isinstance(masker, str):
        kernel = odd_kernel(blur, min(images.shape[-2:]), BLUR)
        if kernel < 3:
            raise SightlineError(
                f"blur is {blur}, a kernel of {max(kernel, 0)} for images {tuple(images.shape[-2:])}: nothing would be hidden"
            )
        background = gaussian_blur(images, kernel) if masker == "blur" else _box(images, kernel)
    else:
        background = _constant(images, masker)
        check_finite(background, "masker")
        if input_spec is not None:
            check_unit_range(background, "masker", "because the input spec normalizes it")
    hidden = to_inputs(background, input_spec)
    return lambda shown, which: torch.where(shown, inputs[which, None], hidden[which, None]).flatten(0, 1)


def _box(images: Tensor, kernel: int) -> Tensor:
    padded = F.pad(images, [kernel // 2] * 4, mode="reflect")
    return F.avg_pool2d(F.avg_pool2d(padded, (kernel, 1), 1), (1, kernel), 1)


def _constant(images: Tensor, masker: float | Sequence[float] | Tensor) -> Tensor:
    """Return a constant, one number per channel or an image, as a tensor like the images."""
    try:
        value = torch.as_tensor(masker, dtype=images.dtype, device=images.device)
        return (value[:, None, None] if value.ndim == 1 else value).expand_as(images)
    except (TypeError, ValueError, RuntimeError):
        came = f"shape {tuple(masker.shape)}" if isinstance(masker, Tensor) else repr(masker)
        raise SightlineError(
            f"masker is {came}; expected a number, one per channel ({images.shape[1]}), or an image {tuple(images.shape[1:])}"
        ) from None


class _Inpainted:
    """Hidden pixels are painted by OpenCV from those around, on 8-bit pixels; where all are hidden, with the mean color.

    A pixel is hidden if any channel of it is. This is what shap does.
    """

    def __init__(self, images: Tensor, input_spec: InputSpec | None, method: str) -> None:
        with requires_extra("masks", f"masker {method!r}"):
            import cv2

        check_pixels(images, change="hidden pixels are painted")
        if images.shape[1] not in (1, 3):
            raise SightlineError(f"images have {images.shape[1]} channels; masker {method!r} paints 1 or 3")
        self.cv2 = cv2
        self.flag = cv2.INPAINT_TELEA if method == "inpaint_telea" else cv2.INPAINT_NS
        self.means = images.mean((2, 3), keepdim=True)
        self.pixels = (images * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().cpu().numpy()
        self.input_spec = input_spec

    def __call__(self, shown: Tensor, images: Tensor) -> Tensor:
        hidden = ~shown.all(2)
        painted = [
            torch.from_numpy(self.cv2.inpaint(pixels, mask, 3, self.flag))
            for pixels, masks in zip(self.pixels[images.cpu().numpy()], hidden.to(torch.uint8).cpu().numpy())
            for mask in masks
        ]
        size = hidden.shape[-2:]
        filled = (
            torch.stack(painted).view(*hidden.shape, -1).to(self.means.device, self.means.dtype).movedim(-1, 2) / 255
        )
        empty = hidden.flatten(2).all(2)[..., None, None, None]
        result = torch.where(empty, self.means[images, None].expand(-1, -1, -1, *size), filled).flatten(0, 1)
        return to_inputs(result, self.input_spec)
