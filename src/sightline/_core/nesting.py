"""Bound how deep and how large values of YAML files and options are, before anything recurses into them."""

from collections.abc import Mapping
from typing import Any

from sightline.errors import SightlineError

DEEPEST = 50
LARGEST_INTEGER = 2**63 - 1  # of torch and numpy
_MOST = 1_000_000


def check_nesting(value: Any, where: str) -> None:
    """Reject mappings and lists that are nested too deeply, are too many, or have keys other than text.

    Args:
        value: Any value; only mappings and lists are searched.
        where: What the value is of, for messages.

    Raises:
        SightlineError: A key is not a text, the value is deeper than `DEEPEST`, or it contains itself.
    """
    level, count = [value], 0
    for _ in range(DEEPEST):
        following: list[Any] = []
        for each in level:
            if isinstance(each, Mapping):
                for key in each:
                    if not isinstance(key, str):
                        raise SightlineError(f"{where}: the key {key!r:.100} is not text; put it in quotes")
                following += each.values()
            elif isinstance(each, list | tuple):
                following += each
            elif isinstance(each, int) and abs(each) > LARGEST_INTEGER:
                raise SightlineError(f"{where} holds a whole number beyond {LARGEST_INTEGER}; expected less")
            if count + len(following) > _MOST:
                raise SightlineError(f"{where} has more than {_MOST} values")
        count += len(following)
        level = following
        if not level:
            return
    raise SightlineError(f"{where} is nested deeper than {DEEPEST} mappings or lists; expected less")
