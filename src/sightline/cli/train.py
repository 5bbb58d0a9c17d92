"""`sightline train`."""

from pathlib import Path
from typing import Annotated

import typer


def train(
    recipe: Annotated[
        str, typer.Argument(help="A YAML file, or the name of a shipped recipe (`sightline list recipes`).")
    ],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Changes, such as seed=1 or guide.beta=0.1.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Run folder. [default: runs/NAME-seedSEED]")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Resume the run if it exists, otherwise start it.")] = False,
    devices: Annotated[
        int, typer.Option(min=1, help="Number of GPUs, or of processes if there is no GPU, on each machine.")
    ] = 1,
    nodes: Annotated[int, typer.Option(min=1, help="Number of machines, each started by torchrun or SLURM.")] = 1,
    evaluate: Annotated[bool, typer.Option(help="Evaluate the run when it is trained.")] = True,
) -> None:
    """Train a model by a recipe, then evaluate it.

    Example: sightline train so-loss data.root=data/pets seed=1
    """
    import logging

    from sightline import evaluation, training
    from sightline._core.processes import is_first_process
    from sightline._core.shared_work import several_processes

    first = is_first_process()  # only this one writes to the terminal
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("sightline").setLevel(logging.INFO if first else logging.WARNING)
    run = training.train(recipe, overrides or [], output, resume, devices, nodes)
    with several_processes() as group:  # those of torchrun; of others, only the first one evaluates
        if evaluate and (first or group.size > 1):
            evaluation.evaluate(run.path)
    if first:
        typer.echo(run.path)
