"""Sums and failures over processes, in a single process; several are tested with the guides."""

import pytest
import torch

from sightline import SightlineError
from sightline._core.distributed import is_first_process, raising_everywhere, sum_over_processes, world_size

CPU = torch.device("cpu")


def test_single_process_sums_are_its_own() -> None:
    values = torch.tensor([1.0, 2.0])
    assert sum_over_processes(values) is values
    assert values.tolist() == [1, 2]
    assert world_size() == 1
    assert is_first_process()


def test_raising_everywhere_raises_this_processs_problem() -> None:
    with raising_everywhere(CPU, "another process failed"):
        pass
    with pytest.raises(SightlineError, match="no image"), raising_everywhere(CPU, "another process failed"):
        raise SightlineError("no image")
