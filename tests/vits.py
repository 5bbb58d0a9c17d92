"""Small vision transformers with random weights in float64, and images for them."""

from typing import Any

import timm
import torch
from torch import Tensor, nn

SIZE, GRID = (16, 24), (2, 3)
TARGETS = torch.tensor([3, 0, 2])


def randomized(model: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    model = model.double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype) * 0.4)
    return model


def vit(**options: Any) -> nn.Module:
    small = {"img_size": SIZE, "patch_size": 8, "embed_dim": 12, "depth": 3, "num_heads": 2, "num_classes": 4} | options
    return randomized(timm.create_model("vit_tiny_patch16_224", **small))


def images(size: tuple[int, int] = SIZE) -> Tensor:
    return torch.rand(3, 3, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def embed(model: Any, x: Tensor) -> Tensor:
    patches = model.patch_embed.proj(x).flatten(2).transpose(1, 2)
    if model.cls_token is not None:
        patches = torch.cat([model.cls_token.expand(len(x), -1, -1), patches], 1)
    return patches + model.pos_embed


def unfused(model: Any) -> nn.Module:
    for block in model.blocks:
        block.attn.fused_attn = False
    return model
