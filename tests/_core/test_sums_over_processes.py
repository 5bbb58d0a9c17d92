"""Sums and failures over processes, in a single process; several are tested with the guides."""

import pytest
import torch

from sightline import SightlineError
from sightline._core.distributed import is_first_process, raise_everywhere, sum_over_processes, world_size

CPU = torch.device("cpu")


def test_single_process_sums_are_its_own() -> None:
    values = torch.tensor([1.0, 2.0])
    assert sum_over_processes(values) is values
    assert values.tolist() == [1, 2]
    assert world_size() == 1
    assert is_first_process()


def test_raise_everywhere_raises_this_processs_problem() -> None:
    raise_everywhere(None, CPU, "another process failed")
    with pytest.raises(SightlineError, match="no image"):
        raise_everywhere(SightlineError("no image"), CPU, "another process failed")
