"""The run folder, as training writes it: what was asked, where it ran, what came of it."""

import json
import os
import platform
import shlex
import subprocess
import sys
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from sightline._core.csv_files import csv_text, read_csv
from sightline._core.files import is_new, make_folder, write_atomically, writing
from sightline._core.optional import requires_extra
from sightline._core.reading import MAKE_AGAIN, read_json
from sightline._core.strict import difference
from sightline._core.version import __version__
from sightline.errors import SightlineError
from sightline.runs.recipe import Recipe, read_recipe

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

PACKAGES = ("torch", "torchvision", "lightning-fabric", "timm", "numpy")

KINDS: dict[str, type] = {
    "classes": list, "data": dict, "data_contents": dict, "input_spec": dict, "loggers": dict, "model": dict,
}  # fmt: skip

EpochEnd = Callable[[bool], None]
"""Called when an epoch is written, with whether more epochs follow."""


@dataclass(frozen=True)
class Run:
    """A run's folder.

    Args:
        path: the folder; `prepare` checks whether it can be used, `begin` creates it.

    Examples:
        >>> from pathlib import Path
        >>> sl.Run(Path("runs/so-loss-seed0")).last.name
        'last.safetensors'
        >>> sl.Run.open("runs/nothing")
        Traceback (most recent call last):
        sightline.errors.SightlineError: runs/nothing is not a run folder: ...
    """

    path: Path

    @classmethod
    def open(cls, run: "str | Path | Run") -> "Run":
        """Return the run in a folder that training has begun to write.

        Raises:
            SightlineError: the folder holds no run.
        """
        opened = run if isinstance(run, Run) else cls(Path(run))
        for file in ("run.json", "recipe.yaml"):
            if not (opened.path / file).is_file():
                raise SightlineError(
                    f"{opened.path} is not a run folder: it holds no {file} (`sightline train` writes run folders)"
                )
        return opened

    @property
    def last(self) -> Path:
        """The weights after the last whole epoch, under the upstream model's keys."""
        return self.path / "checkpoints" / "last.safetensors"

    @property
    def best(self) -> Path:
        """The weights of the best epoch, where the recipe names the metric that selects."""
        return self.path / "checkpoints" / "best.safetensors"

    def weights(self, checkpoint: Literal["last", "best"] | None = None) -> Path:
        """Return the file of a checkpoint's weights; None = the best if the recipe selects one, else the last.

        Warns if the run is not finished.

        Raises:
            SightlineError: the run has no such checkpoint, or not yet.
        """
        if checkpoint is None:
            checkpoint = "last" if self.recipe.save_best is None else "best"
        files = {"last": self.last, "best": self.best}
        if checkpoint not in files:
            raise SightlineError(f"checkpoint is {checkpoint!r}; expected 'last' or 'best'")
        if not files[checkpoint].is_file():
            raise SightlineError(
                f"{self.path} has no checkpoint {checkpoint!r}; finish the run with `sightline train --resume`"
            )
        if (status := self.facts.get("status")) != "finished":
            total = sum(stage.epochs for stage in self.recipe.stages)
            warnings.warn(
                f"{self.path} is not finished ({status}): its weights are those of {len(self.rows)} of at most {total} epochs; "
                "`sightline train --resume` finishes it",
                stacklevel=3,
            )
        return files[checkpoint]

    @property
    def resume_point(self) -> Path:
        """All that a resumed run needs, in one file."""
        return self.path / "checkpoints" / "resume.safetensors"

    @property
    def recipe(self) -> Recipe:
        """The recipe that the run was begun with."""
        return read_recipe(self.path / "recipe.yaml")

    @property
    def facts(self) -> dict[str, Any]:
        """What run.json says."""
        file = self.path / "run.json"
        facts = read_json(file)
        for key, kind in KINDS.items():
            if not isinstance(facts, dict) or not isinstance(facts.get(key, kind()), kind):
                raise SightlineError(f"cannot read {file}: {key} is no {kind.__name__}; {MAKE_AGAIN}")
        return _Facts(file, facts)

    @property
    def rows(self) -> list[dict[str, str]]:
        """The rows of metrics.csv, one per epoch."""
        file = self.path / "metrics.csv"
        return [row for _, row in read_csv(file, ("epoch",))] if file.exists() else []

    def prepare(self, recipe: Recipe, resume: bool) -> None:
        """Reject a folder that this run must not write to.

        Raises:
            SightlineError: there is something already and `resume` is False, or it is of another recipe, except for what is
                measured after training.
        """
        if is_new(self.path, without=("wandb",)):  # W&B writes there before the run begins
            return
        if not resume:
            raise SightlineError(f"output {self.path} exists already; choose another, or resume it with --resume")
        if not (self.path / "recipe.yaml").is_file():
            raise SightlineError(f"output {self.path} is not the folder of a run, which --resume needs")
        if differs := difference(self.recipe.model_copy(update={"evaluation": recipe.evaluation}), recipe):
            raise SightlineError(
                f"cannot resume {self.path}: its recipe differs in {differs}; restore these keys, "
                "or train into another folder with --output"
            )

    def begin(self, recipe: Recipe, facts: dict[str, Any]) -> None:
        """Make the folder and its record, keeping the date of the first start."""
        make_folder(self.path / "checkpoints")
        write_atomically(self.path / "recipe.yaml", recipe.to_yaml().encode())
        started = self.facts["started"] if (self.path / "run.json").exists() else now()
        self._write({**facts, "status": "running", "started": started})

    def update(self, **facts: Any) -> None:
        """Change some facts in run.json."""
        self._write({**self.facts, **facts})

    def log(self, row: dict[str, float | int]) -> None:
        """Write an epoch's row to metrics.csv instead of any later ones, which an interrupted epoch left."""
        kept: list[dict[str, Any]] = [old for old in self.rows if int(old["epoch"]) < row["epoch"]]
        columns = list(dict.fromkeys(key for each in [*kept, row] for key in each))
        write_atomically(self.path / "metrics.csv", csv_text(columns, [*kept, row]).encode())

    def plot(self, row: dict[str, float | int]) -> None:
        """Add an epoch's row, just logged, to the TensorBoard files."""
        with writing(self.path / "tensorboard"):
            for key, value in row.items():
                self._board.add_scalar(key, value, int(row["epoch"]))
            self._board.flush()

    @cached_property
    def _board(self) -> "SummaryWriter":
        with requires_extra("train", "training"):
            from torch.utils.tensorboard import SummaryWriter  # takes a second to import

        return SummaryWriter(str(self.path / "tensorboard"), purge_step=len(self.rows))  # hides what comes after

    def _write(self, facts: dict[str, Any]) -> None:
        write_atomically(self.path / "run.json", json.dumps(facts, indent=1).encode())


class _Facts(dict[str, Any]):
    """What a run.json says; a key that is missing is an error that names the file."""

    def __init__(self, file: Path, facts: dict[str, Any]) -> None:
        super().__init__({key: _Facts(file, each) if isinstance(each, dict) else each for key, each in facts.items()})
        self._file = file

    def __missing__(self, key: str) -> Any:
        raise SightlineError(f"cannot read {self._file}: {key!r} is missing; {MAKE_AGAIN}")


def now() -> str:
    """Return the time in UTC, as ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def surroundings(processes: int, device: torch.device) -> dict[str, Any]:
    """Where a run happens: versions, the code's state in git, hardware and command."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    return {
        "versions": {"python": platform.python_version(), **_versions(), "sightline": __version__},
        "git": _git(),
        "hardware": {
            "device": name,
            "processes": processes,
            "cpus": os.cpu_count(),
            "threads": torch.get_num_threads(),
        },
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
    }


def _versions() -> dict[str, str]:
    """Return the versions of the packages that are installed."""
    found = {}
    for package in PACKAGES:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def _git() -> dict[str, Any] | None:
    """Commit and cleanliness of the folder that the command runs in; None where git has none."""

    def ask(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], capture_output=True, text=True, check=True).stdout.strip()

    try:
        return {"commit": ask("rev-parse", "HEAD"), "dirty": bool(ask("status", "--porcelain"))}
    except (OSError, subprocess.CalledProcessError):
        return None
