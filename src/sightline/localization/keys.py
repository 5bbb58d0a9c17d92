"""The keys of a vision transformer's last attention layer, for images of any size."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from sightline.errors import SightlineError
from sightline.network.branch import own_modules
from sightline.network.modes import evaluating, in_this_thread
from sightline.network.tap import unwrap

SEPARATE = ("k_proj", "k", "key")  # what libraries call the layer that makes the keys alone


def last_keys(model: nn.Module, inputs: Tensor) -> tuple[Tensor, tuple[int, int]]:
    """Return the key of each patch in the last attention layer, with its heads joined, without class and register tokens.

    Queries, keys and values may come from one layer (`qkv`) or from three. Where a network normalises its keys, these are the
    normalised ones; a rotation that encodes positions comes after and is not in them.

    Args:
        model: a plain vision transformer, such as timm's DINO and DINOv2, or a wrapper of one: patches of one size, of which
            every layer has one token each, after those that stand for no place. It is used in eval mode, and not changed.
        inputs: (B, 3, H, W) as the model takes them, H and W divisible by the patch. At another size than the model's, timm's
            position embeddings are resampled as its `dynamic_img_size` does it; rotary ones only where the model has that set.

    Returns:
        The keys (B, h * w, C), and the grid (h, w) of patches in row order.

    Raises:
        SightlineError: the model has no such layer, its tokens are not one a patch, or it cannot take inputs of this size.
    """
    whole, model = unwrap(model), _transformer(model)
    grid = _grid(model, inputs)
    source = _source(model)
    found: list[Tensor] = []
    hook = source.register_forward_hook(in_this_thread(lambda module, args, output: found.append(output)))
    with hook, torch.no_grad(), evaluating(whole), _taking(model, inputs):
        whole(inputs)
    if not found:
        raise SightlineError(f"{type(model).__name__} makes its keys outside of its key layer; LOST cannot read them")
    keys = found[-1]
    if keys.ndim == 4:  # (B, heads, tokens, channels)
        keys = keys.transpose(1, 2).flatten(2)
    elif source is getattr(_attention(model), "qkv", None):
        keys = keys.chunk(3, dim=2)[1]
    patches = grid[0] * grid[1]
    prefix = int(getattr(model, "num_prefix_tokens", keys.shape[1] - patches))
    if prefix < 0 or keys.shape[:2] != (len(inputs), prefix + patches):
        raise SightlineError(
            f"the last attention layer of {type(model).__name__} has keys of shape {tuple(keys.shape)}; expected one for each "
            f"of {grid[0]} x {grid[1]} patches of {len(inputs)} images: LOST needs a plain vision transformer"
        )
    return keys[:, prefix:], grid


def patch_size(model: nn.Module) -> tuple[int, int]:
    """(height, width) of a vision transformer's patches, in pixels.

    Raises:
        SightlineError: the model does not say.
    """
    size: Any = _transformer(model).get_submodule("patch_embed").patch_size
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))


def _transformer(model: nn.Module) -> nn.Module:
    """Return the vision transformer in a model, which may be the model itself."""
    plain = unwrap(model)
    for module in own_modules(plain).values():
        if getattr(getattr(module, "patch_embed", None), "patch_size", None) is not None:
            return module
    raise SightlineError(
        f"{type(plain).__name__} has no patch_embed.patch_size; LOST needs a plain vision transformer, such as "
        "timm/vit_small_patch16_224.dino"
    )


def _grid(model: nn.Module, inputs: Tensor) -> tuple[int, int]:
    (height, width), (down, across) = inputs.shape[-2:], patch_size(model)
    if height % down or width % across:
        raise SightlineError(
            f"inputs have {height} x {width} pixels; expected sides divisible by the patches' {down} x {across}"
        )
    return height // down, width // across


def _attention(model: nn.Module) -> nn.Module:
    """Return the last module that computes keys."""
    for module in reversed(list(model.modules())):
        if any(isinstance(getattr(module, name, None), nn.Module) for name in ("qkv", *SEPARATE)):
            return module
    raise SightlineError(
        f"{type(model).__name__} has no attention layer with keys (qkv, or one of {', '.join(SEPARATE)}); LOST needs a plain "
        "vision transformer, such as timm/vit_small_patch16_224.dino"
    )


def _source(model: nn.Module) -> nn.Module:
    """Return the module whose output holds the keys; timm's `k_norm`, an identity in most models, gives just them."""
    attention = _attention(model)
    children = (getattr(attention, name, None) for name in ("k_norm", "qkv", *SEPARATE))
    return next(child for child in children if isinstance(child, nn.Module))


@contextmanager
def _taking(model: Any, inputs: Tensor) -> Iterator[None]:
    """Let a timm model take inputs of another size than its own, as if it had been made with `dynamic_img_size=True`."""
    if getattr(model, "dynamic_img_size", True) or model.patch_embed.img_size == tuple(inputs.shape[-2:]):
        yield  # it does already, or is not timm's, or need not
        return
    if getattr(model, "rope", None) is not None:
        raise SightlineError(
            f"inputs have {tuple(inputs.shape[-2:])} pixels and the model {model.patch_embed.img_size}; a model with rotary "
            "positions takes another size only if it was made with dynamic_img_size=True"
        )
    from timm.layers import Format

    embed = model.patch_embed
    changes = [
        (model, "dynamic_img_size", True),
        (embed, "strict_img_size", False),
        (embed, "flatten", False),
        (embed, "output_fmt", Format.NHWC),
    ]
    before = [(where, name, getattr(where, name)) for where, name, _ in changes]
    try:
        for where, name, value in changes:
            setattr(where, name, value)
        yield
    finally:
        for where, name, value in before:
            setattr(where, name, value)
