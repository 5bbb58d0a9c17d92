"""Memory that the C library keeps for the next tensor."""

import os
import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource, sys
import torch
from sightline._core.allocator import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
layers = [torch.nn.Conv2d(3, 32, 3, 2), *(torch.nn.Conv2d(32, 32, 1) for _ in range(3))]
model, images = torch.nn.Sequential(*layers), torch.rand(24, 3, 224, 224)
with torch.no_grad():
    for _ in range(3):
        model(images)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(3):
        model(images)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str) -> int:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "LD_PRELOAD", "GLIBC_TUNABLES"))}
    done = subprocess.run(
        [sys.executable, "-c", FAULTS, how], env=environment, capture_output=True, text=True, check=True
    )
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the setting is glibc's")
def test_memory_of_freed_tensors_is_used_again() -> None:
    assert faults("keep") * 4 < faults("leave")


def test_a_chosen_allocator_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    from sightline._core.allocator import keep_freed_memory

    monkeypatch.setenv("MALLOC_ARENA_MAX", "2")
    assert not keep_freed_memory()
