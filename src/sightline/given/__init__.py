"""Any data that a user has in Python, as a dataset of sightline: `as_dataset`, and `as_images` where labels do not matter."""

from sightline.given.adapting import as_dataset
from sightline.given.images import as_images
from sightline.given.pixels import Normalization
from sightline.given.readable import read_some, readable_part
from sightline.given.sources import take_batches

__all__ = ["Normalization", "as_dataset", "as_images", "read_some", "readable_part", "take_batches"]
