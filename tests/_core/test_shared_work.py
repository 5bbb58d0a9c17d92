"""Two and three processes that share work, as threads that exchange messages by a store in memory."""

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.distributed import HashStore

from sightline._core import shared_work
from sightline._core.shared_work import Processes
from sightline.errors import MissingFileError, RunFailedError, SightlineError


def in_processes(size: int, work: Callable[[Processes], Any]) -> list[Any]:
    """Return what each process returns, or its error."""
    store, found = HashStore(), [None] * size

    def run(rank: int) -> None:
        group = Processes(rank, size, rank, store)
        try:
            found[rank] = work(group)
        except Exception as error:
            found[rank] = error

    threads = [threading.Thread(target=run, args=(rank,), daemon=True) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return found


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("count", [0, 1, 2, 7, 9])
def test_results_come_back_in_the_order_of_the_items(size: int, count: int) -> None:
    items = list(range(count))
    found = in_processes(size, lambda group: group.map(lambda item: (item, group.rank), items))
    assert found == [[(item, item % size) for item in items]] * size


def test_one_process_needs_no_store() -> None:
    group = Processes()
    assert group.map(str, [1, 2]) == ["1", "2"]
    assert group.once(lambda: 3) == 3
    assert group.is_first
    group.check()


def test_results_larger_than_one_message_arrive_whole_and_are_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_work, "PIECE", 1000)

    def work(group: Processes) -> tuple[list[torch.Tensor], int]:
        for _ in range(3):
            found = group.join([torch.full((1000,), group.rank)])
        group.join([])
        return found, group._store.num_keys()

    (first, _), (second, keys) = in_processes(2, work)
    assert torch.equal(torch.stack(first), torch.tensor([[0] * 1000, [1] * 1000]))
    assert torch.equal(torch.stack(first), torch.stack(second))
    assert keys < 40  # the last results are there, and not the 9 pieces of each process and round before


def test_only_the_first_process_does_what_is_done_once() -> None:
    done = []

    def work(group: Processes) -> int:
        return group.once(lambda: done.append(group.rank) or 5)

    assert in_processes(3, work) == [5, 5, 5]
    assert done == [0]


@pytest.mark.parametrize("failing", [0, 1])
def test_an_error_of_one_is_an_error_of_all_while_they_work_and_while_they_wait(failing: int) -> None:
    def work(group: Processes) -> None:
        with group.together():
            if group.rank == failing:
                raise MissingFileError("cannot read image 7")
            until = time.monotonic() + 30
            while group.rank == 2 and time.monotonic() < until:
                group.check()
                time.sleep(0.01)

    found = in_processes(3, work)
    assert [type(error) for error in found] == [MissingFileError] * 3
    for rank, error in enumerate(found):
        told = "cannot read image 7" if rank == failing else f"process {failing + 1} of 3: cannot read image 7"
        assert str(error) == told


def test_other_errors_become_those_of_a_run() -> None:
    def work(group: Processes) -> None:
        with group.together():
            if group.rank == 0:
                raise ZeroDivisionError("division by zero")

    first, second = in_processes(2, work)
    assert type(first) is ZeroDivisionError
    assert type(second) is RunFailedError
    assert str(second) == "process 1 of 2: division by zero"


def test_after_an_error_that_is_handled_they_go_on_together() -> None:
    def work(group: Processes) -> list[int]:
        try:
            with group.together():
                if group.rank == 1:
                    raise SightlineError("this part")
        except SightlineError:
            pass
        return group.map(lambda item: 10 * item, [1, 2, 3])

    assert in_processes(2, work) == [[10, 20, 30]] * 2


def test_shares_of_other_sizes_are_refused() -> None:
    found = in_processes(2, lambda group: group.join([1] if group.rank == 0 else [1, 2]))
    assert all("have [1, 2] results; expected equal shares" in str(error) for error in found)


def test_a_name_is_claimed_once_and_what_is_announced_is_found() -> None:
    def work(group: Processes) -> tuple[bool, Any]:
        claimed = group.claim("part")
        if claimed:
            group.announce("part", ("", group.rank))
        while (found := group.announced("part")) is None:
            time.sleep(0.01)
        return claimed, found

    found = in_processes(3, work)
    (winner,) = [rank for rank, (claimed, _) in enumerate(found) if claimed]
    assert [each for _, each in found] == [("", winner)] * 3
