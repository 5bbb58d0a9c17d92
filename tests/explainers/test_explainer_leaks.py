"""Memory stays flat, however often a process explains."""

import gc
import linecache
import os
import tracemalloc

import pytest
from test_precision import NAMES, images, maps_of, network

CALLS = int(os.environ.get("SIGHTLINE_CALLS", "50"))


def generated() -> set[str]:
    """The files of source code that torch.fx has generated; they stay for the rest of the process."""
    return {name for name in linecache.cache if "eval_with_key" in name}


@pytest.mark.parametrize("name", NAMES)
def test_a_call_leaves_no_generated_code(name: str) -> None:
    before = generated()
    maps_of(name, network(), images())
    assert generated() == before


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_memory_of_python_is_flat(name: str) -> None:
    model, inputs = network(), images()
    for _ in range(10):
        maps_of(name, model, inputs)
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(CALLS):
            maps_of(name, model, inputs)
        gc.collect()
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert grown < 100_000 + 1_000 * CALLS  # free lists of Python and torch; generated source code takes 4,000 a call
