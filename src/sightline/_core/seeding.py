"""Randomness that depends on what is drawn, not on who draws it or when.

Everything random in training and data is keyed by (seed, epoch, sample index, purpose), so that neither the number of
workers or processes nor a resumed run can change it.
"""

import hashlib

import torch


def derive_seed(*key: int | str) -> int:
    """A 63-bit seed from a key such as `(seed, epoch, index, "augmentation")`; equal keys give equal seeds."""
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def generator(*key: int | str) -> torch.Generator:
    """A CPU generator seeded by `derive_seed(*key)`."""
    return torch.Generator().manual_seed(derive_seed(*key))
