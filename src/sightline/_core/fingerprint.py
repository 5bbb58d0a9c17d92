"""Fingerprints that distinguish models, so files made by one model are not used for another."""

import hashlib

import torch
from torch import nn


def fingerprint(model: nn.Module) -> str:
    """16 hexadecimal digits that change with any of the model's weights."""
    digest = hashlib.blake2b(digest_size=8)
    for name, tensor in model.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
