"""The features that a session keeps: what a new mark changes is computed again, the rest is not, and the rows are the same."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from cheats import SIZE, SPEC, cheating_model, read_masks, write

from sightline.data import DATASETS
from sightline.data.dataset import ImageDataset
from sightline.fixing.mending.bank import Bank, Pass
from sightline.fixing.mending.draws import blocks
from sightline.fixing.mending.fitting import Rows
from sightline.fixing.mending.marked import MarkedImages
from sightline.fixing.mending.trunk import Trunk

PASSES: list[Pass] = [(True, 0), (True, 1), (False, 0)]
Open = Callable[[], tuple[Bank, list[int]]]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> tuple[ImageDataset, dict[int, np.ndarray], Open]:
    folder = write(tmp_path_factory.mktemp("bank"), False, 20, 0)
    data = DATASETS.create("folder", root=str(folder / "images"), val=0, test=0)["train"]
    masks = read_masks(folder)
    names = ["/".join(Path(data.path(index)).parts[-2:]) for index in range(len(data))]
    model = cheating_model(folder)

    def open_bank() -> tuple[Bank, list[int]]:
        trunk = Trunk("the given network", model, SPEC)
        counts: list[int] = []
        trunk.model.register_forward_pre_hook(lambda module, args: counts.append(len(args[0])))
        bank = Bank(data, [trunk], SIZE, 0)
        assert trunk.grid == (6, 6)
        counts.clear()
        return bank, counts

    return data, {index: (masks[name] > 0).astype(np.uint8) for index, name in enumerate(names)}, open_bank


def rows_of(bank: Bank, masks: dict[int, np.ndarray], avoid: dict[int, np.ndarray] | None = None) -> Rows:
    return bank.rows(0, MarkedImages(bank.images, masks, avoid), PASSES, lambda count: None)


def test_a_new_mark_recomputes_only_what_it_changes(images) -> None:
    data, masks, open_bank = images
    bank, counts = open_bank()
    first = rows_of(bank, masks)
    assert sum(counts) == 2 * 3 * len(data) == len(first.labels)
    counts.clear()
    again = rows_of(bank, masks)
    assert counts == []
    assert torch.equal(first.features.inputs, again.features.inputs)

    changed = 7
    other = {**masks, changed: np.roll(masks[changed], 5, 0)}
    later = rows_of(bank, other)
    depending = 0
    for augmented, number in PASSES:
        for block in blocks(data.labels, number, 0, other_class=not augmented):
            depending += sum(
                member == changed or ranks[0] == changed for member, ranks in zip(block.members, block.partners)
            )
    assert sum(counts) == depending < 12
    fresh = rows_of(open_bank()[0], other)
    for name in ("labels", "indices", "changed", "foreign", "augmented", "inside", "outside"):
        assert torch.equal(getattr(later, name), getattr(fresh, name))
    torch.testing.assert_close(later.features.inputs, fresh.features.inputs, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(later.features.inputs, first.features.inputs, atol=1e-2)


def test_rows_as_they_are_do_not_depend_on_marks(images) -> None:
    data, masks, open_bank = images
    bank, counts = open_bank()
    plain = rows_of(bank, {})
    assert len(plain.labels) == 3 * len(data) == sum(counts)
    assert not plain.changed.any()
    marked = rows_of(bank, masks)
    assert sum(counts) == 6 * len(data)  # those as they are were kept
    assert torch.equal(marked.features.inputs[~marked.changed], plain.features.inputs)
    back = rows_of(bank, {})
    assert torch.equal(back.features.inputs, plain.features.inputs)


def test_still_rows_have_the_background_of_another_class(images) -> None:
    _, masks, open_bank = images
    rows = rows_of(open_bank()[0], masks)
    still = ~rows.augmented & rows.changed
    assert rows.foreign[still].all()
    assert 0 < rows.foreign[rows.augmented & rows.changed].double().mean() < 1  # any other image else


def test_a_region_to_avoid_is_exchanged_without_a_mask(images) -> None:
    data, masks, open_bank = images
    avoid = {index: masks[index] == 1 for index in range(0, len(data), 2)}
    rows = rows_of(open_bank()[0], {}, avoid)
    assert set(rows.indices[rows.changed].tolist()) == set(avoid)
    assert rows.outside[rows.changed & ~rows.augmented].flatten(1).any(1).all()
    assert not rows.inside[torch.isin(rows.indices, torch.arange(1, len(data), 2))].any()
