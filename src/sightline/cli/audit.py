"""`sightline audit`."""

from math import isnan
from pathlib import Path
from statistics import median
from typing import Annotated

import typer

from sightline.cli.options import (
    ClassNames,
    DatasetName,
    DatasetOptions,
    Mean,
    ModelName,
    NumWorkers,
    RunFolder,
    Size,
    Std,
    Weights,
)
from sightline.cli.subject import find_data, find_subject


def audit(
    dataset: DatasetName,
    options: DatasetOptions = None,
    model: ModelName = None,
    weights: Weights = None,
    size: Size = None,
    mean: Mean = None,
    std: Std = None,
    classes: ClassNames = None,
    run: RunFolder = None,
    split: Annotated[str, typer.Option(help="Split of the dataset.")] = "train",
    reference_explainer: Annotated[
        str, typer.Option(help="Explainer that shows the evidence for the predicted class.")
    ] = "gradcam",
    iterations: Annotated[int, typer.Option(min=1, help="Number of iterations of LOTS; fewer are faster.")] = 500,
    num_workers: NumWorkers = 0,
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder to write.")] = Path("audit"),
) -> None:
    """Rank images by the share of attribution outside the evidence for the prediction.

    To resume an interrupted command, run it again.

    Example: sightline audit folder root=photos --run runs/so-loss-seed0
    """
    from sightline._core.devices import pick_device
    from sightline.auditing.run import audit as audit_dataset

    subject = find_subject(model, weights, run, classes, size, mean, std)
    subject.model.to(pick_device())
    images = find_data(dataset, options or [], split, run, labels=True, subject=subject)
    results = audit_dataset(
        subject.model, images, output, input_spec=subject.input_spec,
        reference_explainer=reference_explainer, layer=subject.layer, iterations=iterations,
        classes=subject.names, num_workers=num_workers, name=subject.name, progress=True,
    )  # fmt: skip
    outside = [result.outside_fraction for result in results if not isnan(result.outside_fraction)]
    typer.echo(
        f"Share of attribution outside the evidence: median {median(outside):.0%} of {len(outside)} images; highest "
        f"{outside[0]:.0%}, of {results[0].path}"
    )
    typer.echo(output / "index.html")
