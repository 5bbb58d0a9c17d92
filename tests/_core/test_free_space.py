from pathlib import Path

import pytest

from sightline._core.free_space import free_disk, free_memory, in_units


@pytest.mark.parametrize(("size", "text"), [(1000, "0.001 MB"), (2.5e6, "2.5 MB"), (1.234e9, "1.23 GB")])
def test_in_units_gives_three_digits_and_a_unit(size, text):
    assert in_units(size) == text


def test_free_space_is_the_disks():
    memory = free_memory()
    assert memory is None or memory > 0
    assert free_disk(Path("no", "such", "folder")) == free_disk(Path())
