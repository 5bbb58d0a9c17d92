"""Make splits from records: as given, or drawn at random."""

from collections.abc import Callable, Mapping, Sequence

from sightline.data.file_dataset import FileDataset, Record
from sightline.data.splits import Splits, divide
from sightline.errors import SightlineError


def own_splits(
    parts: Mapping[str, Sequence[Record]],
    sizes: Mapping[str, float],
    seed: int,
    make: Callable[[Sequence[Record]], FileDataset],
) -> Splits:
    """The parts as given, a missing "val" drawn from "train"; or one part without a name, divided by the sizes."""
    if "" in parts and len(parts) > 1:
        raise SightlineError("some rows have a split and some have none; give every row one, or none")
    pool = "" if "" in parts else "train"
    if pool not in parts:
        raise SightlineError(f"the splits are {sorted(parts)}; 'train' is missing")
    if pool == "train":
        sizes = {name: size for name, size in sizes.items() if name == "val" and name not in parts}
    drawn = divide_records(parts[pool], sizes, seed)
    given = {name: part for name, part in parts.items() if name != pool}
    splits = Splits({name: make(part) for name, part in (drawn | given).items()})
    seen = set(splits["train"].labels.tolist())
    for label, name in enumerate(splits.classes):
        if label not in seen:
            raise SightlineError(f"the class {name!r} has no image to train on")
    return splits


def official_splits(
    train: Sequence[Record],
    test: Sequence[Record],
    make: Callable[[Sequence[Record]], FileDataset],
    val: float,
    seed: int,
    per_class: int | None = None,
) -> Splits:
    """Draw "val" from the official training records and keep the official test records as "test"."""
    parts = {**divide_records(train, {"val": val}, seed, per_class), "test": test}
    return Splits({name: make(part) for name, part in parts.items()})


def divide_records(
    records: Sequence[Record], sizes: Mapping[str, float], seed: int, per_class: int | None = None
) -> dict[str, list[Record]]:
    """Divide records at random into "train" and the named parts, as `divide` does with indices."""
    divided = divide([record.label for record in records], sizes, seed, per_class)
    return {name: [records[index] for index in indices] for name, indices in divided.items()}
