"""Fixing: the head of a trained model is fitted again, on images whose objects people marked or programs found.

`fix` does all of it; `marks` and `protocol` say what a mark is and what a refit returns; `mending` is the core, without a page
or a file. The page on which people mark is `sightline.marking`.
"""

from sightline.fixing.fix import fix
from sightline.fixing.result import Fixed

__all__ = ["Fixed", "fix"]
