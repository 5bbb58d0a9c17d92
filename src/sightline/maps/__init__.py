"""Maps of whole data sets: made once in a pass that can be interrupted, kept on disk, read back by index."""

from sightline.maps.store import MapStore
from sightline.maps.writing import write

__all__ = ["MapStore", "write"]
