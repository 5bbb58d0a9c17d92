"""An evaluation as files, all of them or none."""

import csv
import io
import json
import math
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

from safetensors.torch import save
from torch import Tensor
from torchvision.transforms.v2.functional import to_pil_image

from sightline.errors import RunFailedError
from sightline.evaluation.result import Evaluation, Gallery


def check_writable(folder: Path) -> None:
    """Refuse a folder that cannot be made or written to, before the work rather than after it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".{uuid4().hex}.tmp"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise RunFailedError(f"cannot write to {folder}: {error.strerror}") from error


def write(evaluation: Evaluation, folder: Path, facts: dict[str, Any], paths: Sequence[str] | None = None) -> None:
    """Write summary.json, samples.csv, curves.json and gallery/, in place of what the folder held.

    Everything is written beside the folder under a temporary name, and renamed when it is whole.

    Args:
        evaluation: what to write.
        folder: where to.
        facts: what the summary says beside the evaluation's own facts.
        paths: where each image came from.

    Raises:
        RunFailedError: it cannot be written; what was there is untouched.
    """
    temporary = folder.with_name(f".{folder.name}.{uuid4().hex}.tmp")
    try:
        temporary.mkdir(parents=True)
        results = [vars(result) for result in evaluation.results]
        _write(temporary / "summary.json", json.dumps({**facts, **evaluation.facts, "results": results}, indent=1))
        _write(temporary / "samples.csv", _samples(evaluation, paths))
        _write(temporary / "curves.json", json.dumps(_curves(evaluation)))
        if evaluation.gallery is not None:
            _write_gallery(evaluation.gallery, temporary / "gallery")
        _swap(temporary, folder)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise RunFailedError(f"cannot write the evaluation to {folder}: {error.strerror}") from error


def _samples(evaluation: Evaluation, paths: Sequence[str] | None) -> str:
    """The images one by one; a value that is not defined is an empty cell."""
    columns: dict[str, list[Any]] = {name: column.tolist() for name, column in evaluation.samples.items()}
    empty = [""] * len(columns["index"])
    first = {
        "index": columns.pop("index"),
        "path": list(paths) if paths is not None else empty,
        **{name: columns.pop(name) for name in ("label", "predicted", "probability", "correct")},
        "group": columns.pop("group", empty),
    }
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow([*first, *columns])
    for row in zip(*first.values(), *columns.values()):
        writer.writerow(
            ["" if isinstance(v, float) and math.isnan(v) else f"{v:.7g}" if isinstance(v, float) else v for v in row]
        )
    return text.getvalue()


def _curves(evaluation: Evaluation) -> dict[str, Any]:
    return {
        explainer: {metric: {"at": curve.at.tolist(), "score": curve.score.tolist()} for metric, curve in some.items()}
        for explainer, some in evaluation.curves.items()
    }


def _write_gallery(gallery: Gallery, folder: Path) -> None:
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    tensors: dict[str, Tensor] = {"index": gallery.index, **gallery.maps}
    (folder / "maps.safetensors").write_bytes(save(tensors))
    for i, index in enumerate(gallery.index.tolist()):
        to_pil_image(gallery.images[i]).save(folder / "images" / f"{index}.jpg", quality=90)
        if gallery.masks is not None and gallery.has_mask[i]:
            to_pil_image(gallery.masks[i]).save(folder / "masks" / f"{index}.png")


def _write(path: Path, text: str) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _swap(temporary: Path, folder: Path) -> None:
    """Put the new folder in the old one's place."""
    if not folder.exists():
        temporary.rename(folder)
        return
    old = folder.with_name(f".{folder.name}.{uuid4().hex}.old")
    folder.rename(old)
    try:
        temporary.rename(folder)
    except OSError:
        old.rename(folder)
        raise
    shutil.rmtree(old, ignore_errors=True)
