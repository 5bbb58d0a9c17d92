"""A run folder with its history and all its evaluations, as reports read it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sightline._core.csv_files import floats
from sightline._core.reading import reading
from sightline._core.strict import read_mapping
from sightline.errors import SightlineError
from sightline.evaluation.split_folder.folder import SplitEvaluation, evaluation_folders, read_evaluation
from sightline.runs import Run
from sightline.statistics.bootstrap import Array


@dataclass(frozen=True)
class RunFolder:
    """One run.

    Attributes:
        path: The folder.
        info: run.json.
        recipe: recipe.yaml with every key resolved.
        history: Column of metrics.csv -> one value per epoch, NaN where it has none.
        evaluations: Split -> what was measured on it.
    """

    path: Path
    info: dict[str, Any]
    recipe: dict[str, Any]
    history: dict[str, Array]
    evaluations: dict[str, SplitEvaluation]

    @property
    def seed(self) -> int:
        """The seed of training."""
        return int(self.info["seed"])

    def __str__(self) -> str:
        return str(self.path)


def read_run(path: str | Path) -> RunFolder:
    """Read a run folder with all its evaluations.

    Raises:
        SightlineError: The folder is not that of a run, one of its files is damaged, or the run has not been evaluated.
    """
    path = Path(path)
    if not (path / "run.json").is_file():
        raise SightlineError(f"{path} is not a run folder: it holds no run.json (runs are made by `sightline train`)")
    folders = evaluation_folders(path)
    if not folders:
        raise SightlineError(f"{path} has not been evaluated; run `sightline evaluate {path}` first")
    run = Run(path)
    with reading(path / "run.json"):
        int((info := run.facts)["seed"])
    with reading(path / "metrics.csv"):
        history = _history(run.rows)
    evaluations = {split: read_evaluation(folder) for split, folder in folders.items()}
    return RunFolder(path, info, read_mapping(path / "recipe.yaml"), history, evaluations)


def _history(rows: list[dict[str, str]]) -> dict[str, Array]:
    columns = [name for name in (rows[0] if rows else ()) if name != "stage"]
    return {name: floats([row[name] for row in rows]) for name in columns}
