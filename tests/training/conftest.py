import pytest
import torch


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # sums in one order, so that runs can be compared bit by bit
    yield
    torch.set_num_threads(threads)
