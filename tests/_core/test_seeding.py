"""Seeds from keys, and global generators that are put back."""

import torch

from sightline._core.seeding import derive_seed, generator, seeded

CPU = torch.device("cpu")


def test_derive_seed_equal_keys_give_equal_seeds() -> None:
    assert derive_seed(3, "noise") == derive_seed(3, "noise")
    assert (
        len({derive_seed(3, "noise"), derive_seed(4, "noise"), derive_seed(3, "crop"), derive_seed("3", "noise")}) == 4
    )
    assert 0 <= derive_seed(0) < 2**63


def test_generator_draws_by_its_key() -> None:
    assert torch.equal(torch.rand(4, generator=generator(1, "a")), torch.rand(4, generator=generator(1, "a")))


def test_seeded_draws_by_its_key_and_restores_the_global_state() -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    draws = []
    for _ in range(2):
        with seeded(CPU, 1, "a"):
            draws.append(torch.rand(3))
    assert torch.equal(*draws)
    assert torch.equal(torch.rand(3), expected)
