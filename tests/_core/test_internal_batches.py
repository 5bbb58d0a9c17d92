"""Internal batches: how many images go through a model in one call."""

import pytest
import torch
from torch import Tensor

from sightline import SightlineError
from sightline._core import internal_batches
from sightline._core.internal_batches import InternalBatches

IMAGES = torch.zeros(1, 3, 4, 4)


def fits(most: int, rows: int) -> None:
    if rows > most:
        raise torch.OutOfMemoryError


def test_size_without_option_follows_image_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(internal_batches.PIXELS_A_CALL, "cpu", 5 * 16)
    assert InternalBatches().size(IMAGES) == 5
    assert InternalBatches(7).size(IMAGES) == 7
    assert InternalBatches().size(torch.zeros(1, 3, 100, 100)) == 1


def test_map_joins_rows_in_order_and_halves_when_memory_runs_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(internal_batches.PIXELS_A_CALL, "cpu", 8 * 16)
    batches, sizes = InternalBatches(), []

    def call(start: int, stop: int) -> Tensor:
        fits(3, stop - start)
        sizes.append(stop - start)
        return torch.arange(start, stop)

    assert batches.map(call, 7, IMAGES).tolist() == list(range(7))
    assert sizes == [3, 3, 1]
    assert batches.size(IMAGES) == 3  # what was learned stays


def test_fit_repeats_with_half_the_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(internal_batches.PIXELS_A_CALL, "cpu", 8 * 16)

    def call(rows: int) -> Tensor:
        fits(2, rows)
        return torch.tensor(rows)

    assert InternalBatches().fit(call, IMAGES) == 2


@pytest.mark.parametrize("size", [4, 1])
def test_requested_size_is_never_reduced(size: int) -> None:
    with pytest.raises(torch.OutOfMemoryError):
        InternalBatches(size).fit(lambda rows: fits(0, rows), IMAGES)  # type: ignore[arg-type,return-value]
    with pytest.raises(torch.OutOfMemoryError):
        InternalBatches(size).map(lambda start, stop: fits(0, stop - start), 4, IMAGES)  # type: ignore[arg-type,return-value]


def test_size_below_one_raises() -> None:
    with pytest.raises(SightlineError, match="internal_batch_size is 0; expected at least 1 image"):
        InternalBatches(0)
