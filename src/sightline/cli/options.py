"""Options and arguments that several commands share."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from sightline.errors import SightlineError

ModelName = Annotated[
    str | None,
    typer.Option(help="The model: timm/NAME, torchvision/NAME, sightline/NAME, hf:FOLDER or package.module:function."),
]
Weights = Annotated[
    str | None,
    typer.Option(help="Weights of the model: a checkpoint (.pth, .ckpt, .safetensors, a folder), or `default`."),
]
Size = Annotated[
    int | None, typer.Option(min=1, help="Side of the model's input in pixels. [default: as its source says]")
]
Mean = Annotated[
    str | None,
    typer.Option(
        help="Mean of the normalization, for images in [0, 1], such as 0.485,0.456,0.406. [default: as its source says]"
    ),
]
Std = Annotated[
    str | None,
    typer.Option(
        help="Standard deviation of the normalization, such as 0.229,0.224,0.225. [default: as its source says]"
    ),
]
ClassNames = Annotated[
    Path | None,
    typer.Option("--classes", help="A file with the model's class names in order, one per line, for --model."),
]
RunFolder = Annotated[Path | None, typer.Option(help="Folder of a trained run, instead of --model and --weights.")]
DataName = Annotated[
    str | None, typer.Option(help="Dataset: a name, or a folder of images. [default: that of the run]")
]
TargetLayer = Annotated[str | None, typer.Option(help="Target layer. [default: chosen by the family of the model]")]
NumWorkers = Annotated[int, typer.Option(min=0, help="Number of processes that load images.")]
PrecisionName = Annotated[
    str | None,
    typer.Option(
        "--precision", help="bf16 = bfloat16 autocast, faster and less exact. [default: the recipe's, or fp32]"
    ),
]
Devices = Annotated[
    str | None,
    typer.Option(
        help="Spread the runs of a table over devices, one process per device: cuda:0,cuda:1. [default: one device]"
    ),
]
DatasetName = Annotated[str, typer.Argument(help="Dataset: a name (`sightline list datasets`), or a folder of images.")]
DatasetOptions = Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Options of the dataset.")]


def refuse_given(reason: str, **options: object) -> None:
    """Raise if one of these options was given; the reason is the rest of the sentence about it."""
    for name, value in options.items():
        if value is not None and value is not False:
            raise SightlineError(f"--{name.replace('_', '-')} {reason}")


def split_numbers(text: str | None, option: str) -> list[float] | None:
    """Return the numbers that an option joins by commas; None where it was not given."""
    if text is None:
        return None
    try:
        return [float(each) for each in text.split(",")]
    except ValueError:
        raise SightlineError(f"{option} is {text!r}; expected numbers joined by commas, such as 0.5,0.5,0.5") from None


def split_devices(text: str | None) -> list[str] | None:
    """Return the devices that an option joins by commas; None where it was not given."""
    return None if text is None else [each.strip() for each in text.split(",")]


def split_given(given: Sequence[str] | None) -> tuple[list[Path], list[str]]:
    """Return the paths and the KEY=VALUE options among arguments. What exists is a path, even with `=` in its name."""
    paths = [each for each in given or [] if "=" not in each or Path(each).exists()]
    return [Path(each) for each in paths], [each for each in given or [] if each not in paths]


def named_data(data: str, options: Sequence[str]) -> tuple[str, list[str]]:
    """Return the name and the KEY=VALUE options of a dataset. A folder is the dataset `folder`, a CSV file is `csv`."""
    from sightline._core.strict import override_text
    from sightline.data import DATASETS

    path = Path(data)
    if data in DATASETS or not path.exists():
        return data, list(options)
    name, key = ("folder", "root") if path.is_dir() else ("csv", "path")
    return name, [override_text(key, data), *options]
