"""`sightline demo`."""

from pathlib import Path
from typing import Annotated

import typer

GUIDED, PLAIN = "demo-so-loss", "demo-cross-entropy"
QUICK = (
    "data.copies=1",
    "evaluation.splits=[test_shifted]",
    "evaluation.explainers=[gradcam, gaussian]",
    "evaluation.metrics=[accuracy, worst_group_accuracy, energy_in_mask]",
)


def demo(
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Changes to both recipes, such as image_size=64."),
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the runs and the report.")] = Path(
        "runs/demo"
    ),
    seeds: Annotated[int, typer.Option(min=1, help="Number of trainings of each model.")] = 1,
    quick: Annotated[
        bool, typer.Option("--quick", help="One epoch and a few metrics: a check in about a minute.")
    ] = False,
) -> None:
    """Train with and without explanation guidance on embedded data, and compare: about three minutes on a CPU.

    Example: sightline demo
    """
    from rich.console import Console

    from sightline.evaluation import evaluate
    from sightline.evaluation.comparison import read_comparison
    from sightline.reporting import comparison
    from sightline.reporting.comparison.summary import summary
    from sightline.runs import read_recipe
    from sightline.training import train

    console = Console()
    runs: dict[str, list[Path]] = {name: [] for name in (PLAIN, GUIDED)}
    for seed in range(seeds):
        for name in (PLAIN, GUIDED):
            console.print(f"[bold]{name}[/bold], seed {seed}")
            epochs = [f"stages.{i}.epochs=1" for i in range(len(read_recipe(name).stages))]
            recipe = read_recipe(name, [f"seed={seed}", *((*QUICK, *epochs) if quick else ()), *(overrides or ())])
            run = train(recipe, output=output / f"{name}-seed{seed}", resume=True)
            evaluate(run)
            runs[name].append(run.path)
    report = comparison.compare(runs[GUIDED], runs[PLAIN], output / "report.html")
    console.print("", summary(read_comparison(runs[GUIDED], runs[PLAIN])), "", f"Report: {report.resolve()}")
