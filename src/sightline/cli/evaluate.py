"""`sightline evaluate`."""

from pathlib import Path
from typing import Annotated

import typer


def evaluate(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    splits: Annotated[str | None, typer.Option(help="Joined by commas. [default: the recipe's]")] = None,
    explainers: Annotated[str | None, typer.Option(help="Joined by commas. [default: the recipe's]")] = None,
) -> None:
    """Measure a trained run: how often it is right, and where its maps lie under several explainers."""
    from sightline import evaluation

    evaluation.evaluate(run, splits and splits.split(","), explainers and explainers.split(","))
