"""`sightline evaluate`."""

from pathlib import Path
from typing import Annotated

import typer

from sightline.cli.options import (
    ClassNames,
    DataName,
    Devices,
    Mean,
    ModelName,
    PrecisionName,
    Size,
    Std,
    Weights,
    named_data,
    refuse_given,
    split_devices,
    split_given,
    split_numbers,
)
from sightline.errors import SightlineError


def evaluate(
    given: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RUN|PLAN]... [KEY=VALUE]...",
            help="A run folder; several; or a YAML file. KEY=VALUE are options of --data, or changes to the plan.",
        ),
    ] = None,
    model: ModelName = None,
    weights: Weights = None,
    size: Size = None,
    mean: Mean = None,
    std: Std = None,
    classes: ClassNames = None,
    data: DataName = None,
    splits: Annotated[
        str | None, typer.Option(help="Splits, joined by commas. [default: the recipe's, or every test split]")
    ] = None,
    explainers: Annotated[
        str | None, typer.Option(help="Explainers, joined by commas. [default: the recipe's]")
    ] = None,
    metrics: Annotated[str | None, typer.Option(help="Metrics, joined by commas. [default: the recipe's]")] = None,
    num_images: Annotated[
        int | None, typer.Option(min=1, help="Number of images, drawn at random. [default: all]")
    ] = None,
    max_images_slow: Annotated[
        int | None,
        typer.Option(min=0, help="Number of images of one run for slow metrics. [default: the recipe's number]"),
    ] = None,
    contrast: Annotated[
        bool,
        typer.Option(
            "--contrast", help="Explain why the model predicts this class and not the second most probable one."
        ),
    ] = False,
    compiled: Annotated[bool, typer.Option("--compiled", help="Speed up the slow metrics by torch.compile.")] = False,
    precision: PrecisionName = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Folder to write a table into.")] = None,
    devices: Devices = None,
) -> None:
    """Measure the accuracy of a model, and how well its maps of several explainers cover the object.

    The results of one run go into its folder. Several runs, a model from elsewhere or a plan give a table models x
    explainers x metrics in its own folder, with every image's values and paired tests. To resume an interrupted table,
    run the command again.

    Example: sightline evaluate runs/so-loss-seed0
    """
    named = [None if each is None else each.split(",") for each in (splits, explainers, metrics)]
    paths, options = split_given(given)
    if len(paths) == 1 and output is None and model is None and paths[0].suffix not in (".yaml", ".yml"):
        from sightline import evaluation

        reason = "was given for one run, which is evaluated on its own data; --output makes a table"
        if options:
            raise SightlineError(f"KEY=VALUE {reason}")
        refuse_given(
            reason, weights=weights, size=size, mean=mean, std=std, classes=classes, data=data, num_images=num_images,
            contrast=contrast, devices=devices,
        )  # fmt: skip
        evaluation.evaluate(paths[0], *named, max_images_slow=max_images_slow, precision=precision)  # type: ignore
        return

    from sightline import studies

    if max_images_slow is not None:
        raise SightlineError("--max-images-slow is for one run; a table's metrics all see --num-images images")
    if len(paths) == 1 and paths[0].suffix in (".yaml", ".yml"):
        refuse_given(
            "was given together with a plan; change the keys of the plan by KEY=VALUE", model=model, weights=weights,
            size=size, mean=mean, std=std, classes=classes, data=data, explainers=explainers, metrics=metrics,
            precision=precision,
        )  # fmt: skip
        study = studies.load_study(paths[0], options)
        folder = output or Path("runs", "evaluate", study.item)
    else:
        if output is None:
            raise SightlineError("--output was not given; expected a folder for the table")
        if data is not None:
            data, options = named_data(data, options)
        study = studies.make_grid(
            output.name, paths, options, model=model, weights=weights, size=size, mean=split_numbers(mean, "--mean"),
            std=split_numbers(std, "--std"), classes=classes, data=data, splits=named[0], explainers=named[1],
            metrics=named[2], num_images=num_images, contrast=contrast, compiled=compiled,
            precision=precision or "fp32",  # type: ignore
        )  # fmt: skip
        folder = output
    typer.echo(studies.run_study(study, folder, devices=split_devices(devices)) / "report.md")
