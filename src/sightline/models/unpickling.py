"""Files of torch.save, read by the unpickler of torch that runs no code; objects of other classes become empty stand-ins."""

import re
from contextlib import suppress
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, ClassVar

import torch


class StandIn:
    """An object instead of one whose class is not imported; it has the attributes that the file gives it."""

    of: ClassVar[str] = ""

    def __init__(self, *args: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        for part in state if isinstance(state, tuple) else (state,):
            if isinstance(part, dict):
                self.__dict__.update(part)


def load_inert(path: Path) -> Any:
    """Return what torch.save wrote, on the CPU, without importing or calling anything that the file names.

    Raises:
        UnpicklingError: the file cannot be read without running code.
    """
    names: list[str] = []
    with suppress(ValueError):  # a file in the format of torch before 1.6
        names = torch.serialization.get_unsafe_globals_in_checkpoint(str(path))
    results: list[type | None] = [None] * len(names)  # None = a stand-in; else a plain dict or list
    while True:
        allowed: list[Any] = [(_make(number, *each), each[0]) for number, each in enumerate(zip(names, results))]
        try:
            with torch.serialization.safe_globals(allowed):
                return torch.load(path, map_location="cpu", weights_only=True)
        except UnpicklingError as error:  # a subclass of dict or list is filled, which only plain ones may be
            found = re.search(r"Can only (SETITEM|append).*StandIn(\d+)", str(error), re.DOTALL)
            if found is None or results[int(found[2])] is not None:
                raise
            results[int(found[2])] = dict if found[1] == "SETITEM" else list


def _make(number: int, name: str, result: type | None) -> type:
    """Return the class that stands in for the one of that name."""
    options: dict[str, Any] = {"of": name, "__module__": __name__}
    if result is not None:
        options["__new__"] = lambda cls, *args: result()
    return type(f"StandIn{number}", (StandIn,), options)
