"""`sightline evaluate`."""

from pathlib import Path
from typing import Annotated

import typer


def evaluate(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    splits: Annotated[str | None, typer.Option(help="Joined by commas. [default: the recipe's]")] = None,
    explainers: Annotated[str | None, typer.Option(help="Joined by commas. [default: the recipe's]")] = None,
    metrics: Annotated[str | None, typer.Option(help="Joined by commas. [default: the recipe's]")] = None,
    slow_samples: Annotated[
        int | None, typer.Option(min=0, help="Images that slow metrics see. [default: the recipe's number]")
    ] = None,
) -> None:
    """Measure a trained run: how often it is right, and where its maps lie under several explainers."""
    from sightline import evaluation

    named = [None if each is None else each.split(",") for each in (splits, explainers, metrics)]
    evaluation.evaluate(run, *named, slow_samples=slow_samples)
