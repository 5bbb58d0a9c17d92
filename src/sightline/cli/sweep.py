"""`sightline sweep`."""

from pathlib import Path
from typing import Annotated, Literal

import typer


def sweep(
    recipe: Annotated[
        str, typer.Argument(help="A recipe or a sweep: a YAML file, or the name of one that sightline ships.")
    ],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Changes to the recipe of all trials.")
    ] = None,
    over: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUES",
            help="Values of a key, tried in different trials: 'batch_size=[16, 32]', "
            "'stages.0.lr={low: 1e-4, high: 1e-2, log: true}', or with step: instead of log:. May be repeated.",
        ),
    ] = None,
    metric: Annotated[str | None, typer.Option(help="Validation value to optimize. [default: val/accuracy]")] = None,
    front: Annotated[
        str | None,
        typer.Option(
            metavar="METRIC@EXPLAINER",
            help="A second metric, such as energy_in_mask@gradcam: the results list the trials that none beats in both.",
        ),
    ] = None,
    sampler: Annotated[
        Literal["grid", "random", "tpe"] | None,
        typer.Option(help="How values are chosen: every combination, at random, or by TPE. [default: grid]"),
    ] = None,
    trials: Annotated[int | None, typer.Option(min=1, help="Number of trials. [default: the whole grid]")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Random seed. [default: 0]")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the sweep. [default: the recipe's]")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder to write. [default: runs/sweep/NAME]")
    ] = None,
    storage: Annotated[
        str | None,
        typer.Option(metavar="URL", help="URL of a database that several machines share. [default: in the folder]"),
    ] = None,
) -> None:
    """Train a recipe with many values of its keys, and report which are best by a validation value.

    To resume an interrupted sweep, run it again. Several processes can run one sweep at once.

    Example: sightline sweep recipe.yaml --over 'batch_size=[16, 32]'
    """
    from sightline import sweeping

    document = sweeping.read_sweep(
        recipe,
        overrides or [],
        over or [],
        metric=metric,
        front=front,
        sampler=sampler,
        trials=trials,
        seed=seed,
        name=name,
    )
    done = sweeping.sweep(document, output, storage)
    typer.echo(done.path / "results.md")
    typer.echo(done.conclusion)
