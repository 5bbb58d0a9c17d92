"""Data: batches, datasets with masks and groups, transforms, the loader, readers of files.

Examples:
    >>> splits = sl.data.create_dataset("digits", size=32, copies=1)  # bundled; needs the extra `cluster`
    >>> list(splits)
    ['train', 'val', 'val_shifted', 'test_shifted', 'test_iid']
"""

from typing import Any

from sightline.data.batch import Batch
from sightline.data.dataset import ImageDataset, Sample
from sightline.data.registry import DATASETS
from sightline.data.splits import Splits

__all__ = ["DATASETS", "Batch", "ImageDataset", "Sample", "Splits", "create_dataset", "list_datasets"]


def list_datasets() -> dict[str, dict[str, Any]]:
    """Every data set's name, with its capabilities."""
    return DATASETS.capabilities()


def create_dataset(name: str, **options: Any) -> Splits:
    """Make a registered data set, such as `create_dataset("pets", root="data/pets", val=0.2)`.

    Raises:
        SightlineError: no data set has that name, or it has no such option, or its files are not as it expects.
    """
    return DATASETS.create(name, **options)
