"""Options and arguments that several commands share."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

ModelName = Annotated[
    str | None, typer.Option(help="Name of the model: timm/NAME, torchvision/NAME or sightline/NAME.")
]
Weights = Annotated[str | None, typer.Option(help="Weights of the model: a .safetensors or .pth file, or `default`.")]
RunFolder = Annotated[Path | None, typer.Option(help="Folder of a trained run, instead of --model and --weights.")]
DataName = Annotated[str | None, typer.Option(help="Name of the dataset. [default: that of the run]")]
TargetLayer = Annotated[str | None, typer.Option(help="Target layer. [default: chosen by the family of the model]")]
NumWorkers = Annotated[int, typer.Option(min=0, help="Number of processes that load images.")]
DatasetName = Annotated[str, typer.Argument(help="Name of a dataset (`sightline list datasets`).")]
DatasetOptions = Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Options of the dataset.")]


def split_given(given: Sequence[str] | None) -> tuple[list[Path], list[str]]:
    """Return the paths and the KEY=VALUE options among arguments. What exists is a path, even with `=` in its name."""
    paths = [each for each in given or [] if "=" not in each or Path(each).exists()]
    return [Path(each) for each in paths], [each for each in given or [] if each not in paths]
