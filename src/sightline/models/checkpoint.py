"""What a file or folder of weights holds, by any library. No code is unpickled: other objects are empty stand-ins."""

import re
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, ClassVar

import torch
from torch import Tensor

from sightline._core.reading import read_json, read_tensors, reading
from sightline.errors import SightlineError

ADVICE = "give another file by weights"
DEPTH = 3  # of mappings in mappings that may hold tensors
NAMES = ("class_names", "classes", "class_to_idx", "idx_to_class", "id2label", "label_names", "categories", "CLASSES")
ZIP, PICKLE = b"PK\x03\x04", b"\x80"  # what files of torch.save begin with since 1.6, and before
TORCH = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # before 1.6, in full
INDEX = "model.safetensors.index.json"
FOREIGN = {
    ".onnx": "an ONNX program",
    ".h5": "a file of Keras",
    ".keras": "a file of Keras",
    ".tflite": "a TensorFlow Lite program",
    ".pb": "a TensorFlow program",
    ".engine": "a TensorRT program",
    ".npz": "a file of NumPy",
    ".npy": "a file of NumPy",
}


@dataclass(frozen=True)
class Checkpoint:
    """The state dicts of a checkpoint.

    Attributes:
        path: the file or folder.
        states: tensor by name, by where in the file they are, such as `['state_dict']`; "" = the file itself.
        classes: the class names that the file gives; None = it gives none, or several that differ.
    """

    path: Path
    states: dict[str, dict[str, Tensor]]
    classes: list[str] | None = None


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a `.safetensors` file, a file of `torch.save` or Lightning, or a folder of Hugging Face, on the CPU.

    Raises:
        SightlineError: no such file, a damaged one, or one without a state dict; the message says how to convert it.
    """
    if path.is_dir():
        return _read_folder(path)
    if not path.is_file():
        raise SightlineError(f"weights: there is no file {str(path)!r}; expected None, 'default' or a file")
    with reading(path, ADVICE):
        refuse_pointer(path)
    if path.suffix in FOREIGN:
        raise SightlineError(f"weights: {path} is {FOREIGN[path.suffix]}; expected a file of torch.save or safetensors")
    if path.suffix == ".safetensors":
        return Checkpoint(path, {"": read_tensors(path, ADVICE)[0]})
    with reading(path, ADVICE):
        _refuse_strange(path)
    _refuse_programs(path)
    try:
        with reading(path, ADVICE):
            content = load_inert(path)
    except SightlineError as error:
        if isinstance(error.__cause__, UnpicklingError):
            raise _needs_code(path) from error
        raise
    states = dict(_states(content, "", DEPTH))
    if not states:
        raise _no_state_dict(path, content)
    return Checkpoint(path, states, _class_names(content))


def _read_folder(folder: Path) -> Checkpoint:
    """Read the weights of a folder as Hugging Face saves them: one file, or several with an index."""
    if (index := folder / INDEX).is_file():
        files = sorted(set(read_json(index, "fetch the folder again")["weight_map"].values()))
        if missing := [file for file in files if not (folder / file).is_file()]:
            raise SightlineError(
                f"weights: {len(missing)} files that {index} names are missing, such as {missing[0]}; copy the whole folder"
            )
        state: dict[str, Tensor] = {}
        for file in files:
            refuse_pointer(folder / file)
            state |= read_tensors(folder / file, ADVICE)[0]
        return Checkpoint(folder, {"": state})
    for name in ("model.safetensors", "pytorch_model.bin"):
        if (folder / name).is_file():
            return read_checkpoint(folder / name)
    raise SightlineError(
        f"weights: the folder {folder} has no model.safetensors, {INDEX} or pytorch_model.bin; "
        "name the folder that holds one of these, or the file itself"
    )


def _refuse_strange(path: Path) -> None:
    """Reject a file that torch.save did not write, such as a web page or another program's pickle."""
    with path.open("rb") as file:
        start = file.read(max(len(TORCH), 40))
    if start[: len(PICKLE)] == PICKLE and not start.startswith(TORCH):
        raise SightlineError(
            f"weights: {path} is a pickle that torch.save did not write, which runs code as it is opened. If you trust the "
            "file and it is a dict of arrays by name, convert it once by\n"
            f"  import pickle, torch; state = pickle.load(open({str(path)!r}, 'rb'))\n"
            f"  torch.save({{name: torch.as_tensor(value) for name, value in state.items()}}, {_converted(path)!r})"
        )
    if start and not start.startswith((ZIP[: len(start)], PICKLE)):
        page = ", a web page, as a failed download leaves it" if start.lstrip().startswith(b"<") else ""
        raise SightlineError(
            f"weights: cannot read {path}: it begins with {start[:12]!r}{page}; expected a file of torch.save or safetensors"
        )


def _refuse_programs(path: Path) -> None:
    """Reject archives that hold a program instead of weights."""
    if not zipfile.is_zipfile(path):
        return
    with reading(path, ADVICE), zipfile.ZipFile(path) as archive:
        parts = {name.rpartition("/")[2] for name in archive.namelist()}
    for part, kind, load in (
        ("constants.pkl", "a TorchScript program", "torch.jit.load({!r})"),
        ("archive_format", "a program of torch.export", "torch.export.load({!r}).module()"),
    ):
        if part in parts:
            raise SightlineError(
                f"weights: {path} is {kind}; expected weights. Convert it by\n"
                f"  model = {load.format(str(path))}\n  torch.save(model.state_dict(), {_converted(path)!r})"
            )


def _states(value: Any, place: str, depth: int) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Yield each mapping of names to tensors in what a file holds, with its place."""
    if isinstance(value, Mapping):
        items = {key: inner for key, inner in value.items() if isinstance(key, str)}
        tensors = {key: inner for key, inner in items.items() if isinstance(inner, Tensor)}
        if tensors:
            yield place, tensors
    elif isinstance(value, list | tuple):
        items = dict(enumerate(value))  # type: ignore[arg-type]
    else:
        return
    for key, inner in items.items() if depth else ():
        yield from _states(inner, f"{place}[{key!r}]", depth - 1)


def _needs_code(path: Path) -> SightlineError:
    return SightlineError(
        f"weights: cannot read {path} without running code that it holds. If you trust the file, convert it once, where the "
        "code that it needs can be imported, by\n"
        f"  loaded = torch.load({str(path)!r}, weights_only=False, map_location='cpu')\n"
        "  state = loaded.state_dict() if hasattr(loaded, 'state_dict') else loaded.get('state_dict', loaded)\n"
        f"  torch.save({{name: value for name, value in state.items() if torch.is_tensor(value)}}, {_converted(path)!r})\n"
        "If it keeps the weights under another key than 'state_dict', put this key there"
    )


def _no_state_dict(path: Path, content: Any) -> SightlineError:
    """Return the error for a file without tensors by name, which most often is a whole pickled model."""
    pickled = {"": content} if isinstance(content, StandIn) else {}
    if isinstance(content, Mapping):
        pickled = {f"[{key!r}]": value for key, value in content.items() if isinstance(value, StandIn)}
    models = {place: value.of for place, value in pickled.items() if "_modules" in vars(value)}
    for place, name in models.items():
        return SightlineError(
            f"weights: cannot read {path}{place}: it is a whole pickled model ({name}), which runs code as it is opened. "
            f"{_convert(path, place)}"
        )
    holds = ", ".join(map(repr, list(content)[:8])) if isinstance(content, Mapping) else type(content).__name__
    return SightlineError(f"weights: {path} holds no state dict (a dict of name to tensor), but {holds or 'nothing'}")


def _convert(path: Path, place: str) -> str:
    return (
        "If you trust the file, convert it once, where the code of its model can be imported, by\n"
        f"  model = torch.load({str(path)!r}, weights_only=False, map_location='cpu'){place}\n"
        f"  torch.save(model.state_dict(), {_converted(path)!r})"
    )


def _converted(path: Path) -> str:
    return f"{path.stem}-weights.pth"


def _class_names(content: Any) -> list[str] | None:
    """Return the class names that a checkpoint stores with its weights; None if there are none or they differ."""
    found: list[list[str]] = []
    for holder in _holders(content):
        found += [names for key in NAMES if (names := _as_names(holder.get(key)))]
    return found[0] if found and all(names == found[0] for names in found) else None


def _holders(content: Any) -> Iterator[Mapping[Any, Any]]:
    """Yield a file's mapping, and those inside that describe the training."""
    top = vars(content) if isinstance(content, StandIn) else content
    if isinstance(top, Mapping):
        yield top
        for value in top.values():
            inner = vars(value) if isinstance(value, StandIn) else value
            if isinstance(inner, Mapping):
                yield inner


def _as_names(value: Any) -> list[str] | None:
    """Class names in order, of a list, or of a mapping from or to indices."""
    if isinstance(value, Mapping):
        if all(isinstance(name, str) and isinstance(index, int) for name, index in value.items()):
            value = {index: name for name, index in value.items()}
        try:
            by_index = {int(index): name for index, name in value.items()}
        except (TypeError, ValueError):
            return None
        value = [by_index.get(index) for index in range(len(by_index))]
    if not isinstance(value, list | tuple) or not all(isinstance(name, str) for name in value):
        return None
    return list(value) if value and len(set(value)) == len(value) else None


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


def refuse_pointer(path: Path) -> None:
    """Reject a file that is a pointer of Git LFS.

    Raises:
        SightlineError: it is one; the message says how to fetch the content.
    """
    with path.open("rb") as file:
        if file.read(42) == b"version https://git-lfs.github.com/spec/v1":
            raise SightlineError(f"{path} is a pointer of Git LFS, not the file itself; fetch it with `git lfs pull`")
