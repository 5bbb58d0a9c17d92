"""Files of users and of earlier commands, read with an error that names a damaged file and what to do."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor

from sightline.errors import SightlineError

MAKE_AGAIN = "give the command that made it again, or restore the file"
RESTORE = "fetch the data again, or restore the file"


@contextmanager
def reading(path: str | Path, advice: str = MAKE_AGAIN) -> Iterator[None]:
    """Turn every error of a missing or damaged file into one.

    Args:
        path: The file.
        advice: What the user is to do.

    Raises:
        SightlineError: Something within failed; the message names the file, the reason and the advice.
    """
    try:
        yield
    except (SightlineError, MemoryError):
        raise
    except Exception as error:
        raise SightlineError(f"cannot read {path}: {_reason(error)}; {advice}") from error


def read_json(path: Path, advice: str = MAKE_AGAIN) -> Any:
    """Return what a JSON file says."""
    with reading(path, advice):
        return json.loads(path.read_text(encoding="utf-8"))


def read_tensors(path: Path, advice: str = MAKE_AGAIN, ending: str = "") -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors of a safetensors file by name, those alone whose name has an ending, and its metadata."""
    with reading(path, advice), safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys() if name.endswith(ending)}  # noqa: SIM118
        return tensors, dict(file.metadata() or {})


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "it is missing"
    if isinstance(error, OSError):
        return error.strerror or str(error)
    if isinstance(error, KeyError):
        return f"{error} is missing"
    if isinstance(error, UnicodeDecodeError):
        return "it is not UTF-8 text"
    if isinstance(error, EOFError) and not str(error):
        return "it ends too early"
    return " ".join(str(error).split()) or type(error).__name__
