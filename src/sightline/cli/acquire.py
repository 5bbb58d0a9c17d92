"""`sightline acquire`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from sightline.cli.options import refuse_given
from sightline.errors import SightlineError


def acquire(
    source: Annotated[
        str,
        typer.Argument(
            help="A recipe, a plan (YAML with `kind: active_learning`); or, with --next, a trained run's folder."
        ),
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE]...",
            help="Changes to the recipe or plan; with --next, options of the query strategy, such as explainer=xgradcam.",
        ),
    ] = None,
    strategy: Annotated[
        str | None,
        typer.Option(
            help="Query strategies, joined by commas (`sightline list query-strategies`). [default: all of them]"
        ),
    ] = None,
    initial_fraction: Annotated[
        float | None,
        typer.Option(
            help="Share of the training images that have a label in the first round, in (0, 1]. [default: 0.3]"
        ),
    ] = None,
    step_fraction: Annotated[
        float | None, typer.Option(help="Share of the training images that each round adds, in (0, 1]. [default: 0.1]")
    ] = None,
    rounds: Annotated[
        int | None, typer.Option(min=1, help="Number of rounds, including the first. [default: 7]")
    ] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="Number of seeds, from 0 on. [default: 3]")] = None,
    columns: Annotated[
        str | None,
        typer.Option(
            help="SPLIT/METRIC or SPLIT/METRIC@EXPLAINER, joined by commas. [default: accuracy on the test split, and where it "
            "has masks Grad-CAM's mIoU and energy on the object]"
        ),
    ] = None,
    count: Annotated[
        int | None,
        typer.Option("--next", min=1, help="Number of images to label next, selected by a run's model; no training."),
    ] = None,
    pool: Annotated[
        Path | None,
        typer.Option(
            help="With --next: a folder of images without labels. [default: images outside the run's train_samples]"
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="The folder; with --next, the list. [default: runs/acquire/NAME, next.csv]"
        ),
    ] = None,
) -> None:
    """Compare active-learning strategies, or select the next images to label.

    The loop starts with a share of the training labels, trains, evaluates and adds, round after round, with several seeds; an
    interrupted loop is resumed by the same command. With --next, a trained run selects among images that have no label
    yet, and writes them to a list, the most important one first.

    Example: sightline acquire recipe.yaml --strategy uncertainty,random --rounds 3
    """
    names = None if strategy is None else strategy.split(",")
    if count is None:
        from sightline.studies import run_study
        from sightline.studies.plan import load_active_learning

        if pool is not None:
            raise SightlineError("--pool was given without --next; the loop chooses among the recipe's training images")
        study = load_active_learning(
            source, overrides or [], strategies=names, initial_fraction=initial_fraction, step_fraction=step_fraction,
            rounds=rounds, seeds=seeds, columns=None if columns is None else columns.split(","),
        )  # fmt: skip
        typer.echo(run_study(study, output or Path("runs", "acquire", study.item)) / "report.md")
        return

    from sightline._core.strict import apply_overrides
    from sightline.acquisition import create_query_strategy, select_from_run
    from sightline.datasets.derived.subset import write_list
    from sightline.runs import Run

    refuse_given(
        "was given together with --next, which does one step of the loop; leave one out", rounds=rounds, seeds=seeds,
        initial_fraction=initial_fraction, step_fraction=step_fraction, columns=columns,
    )  # fmt: skip
    if names is None or len(names) != 1:
        raise SightlineError(
            "--next needs one query strategy: give --strategy NAME (`sightline list query-strategies`)"
        )
    options: dict[str, Any] = {}
    apply_overrides(options, overrides or [])
    lines = select_from_run(Run(Path(source)), create_query_strategy(names[0], **options), count, pool=pool)
    file = output or Path("next.csv")
    write_list(file, lines)
    pseudo = sum(bool(line.pseudo_label) for line in lines)
    more = f", and {pseudo} pseudo-labels" if pseudo else ""
    typer.echo(f"{len(lines) - pseudo} images to label{more}", err=True)
    typer.echo(file)
