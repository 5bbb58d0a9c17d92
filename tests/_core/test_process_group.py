from pathlib import Path

import pytest
import torch.distributed as dist

from sightline._core.distributed import process_group_ended


def form(folder: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=0, world_size=1)


def test_a_group_that_is_formed_inside_ends_there(tmp_path: Path) -> None:
    with process_group_ended():
        form(tmp_path)
    assert not dist.is_initialized()


def test_a_group_ends_after_an_error_too(tmp_path: Path) -> None:
    def work() -> None:
        with process_group_ended():
            form(tmp_path)
            _ = 1 / 0

    with pytest.raises(ZeroDivisionError):
        work()
    assert not dist.is_initialized()


def test_a_group_of_the_caller_stays(tmp_path: Path) -> None:
    form(tmp_path)
    try:
        with process_group_ended():
            pass
        assert dist.is_initialized()
    finally:
        dist.destroy_process_group()
