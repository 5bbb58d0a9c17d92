"""`sightline rate`."""

from pathlib import Path
from typing import Annotated

import typer

from sightline.errors import SightlineError


def rate(
    runs: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[RUN_A] [RUN_B]",
            help="Two run folders; or one, to compare two explainers; or none, for the study in --output.",
        ),
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Study folder; an existing study is resumed.")] = Path(
        "rating"
    ),
    explainers: Annotated[
        str, typer.Option(help="Explainer of the maps: one name for two runs, two joined by a comma for one run.")
    ] = "gradcam",
    images: Annotated[int | None, typer.Option(min=1, help="Number of images. [default: 100, or the study's]")] = None,
    split: Annotated[
        str | None, typer.Option(help="Split of the images. [default: the main test split, or the study's]")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Random seed. [default: 0, or the study's]")] = None,
    host: Annotated[str, typer.Option(help="Address to serve at; 0.0.0.0 lets other machines in.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to serve at; 0 = any.")] = 8370,
    results: Annotated[
        bool, typer.Option("--results", help="Count the votes; write votes.csv and results.json.")
    ] = False,
    export_batch: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Folder to write the pairs into, as a crowdsourcing batch.")
    ] = None,
    url: Annotated[str | None, typer.Option(help="Address under which the images of the batch will be found.")] = None,
    import_batch: Annotated[
        Path | None, typer.Option(metavar="CSV", help="Results of such a batch, to add to the study.")
    ] = None,
) -> None:
    """Serve a local page for pairwise human evaluation of saliency maps.

    The answers are kept in the study's folder. To resume, run the command again.

    Example: sightline rate runs/so-loss-seed0 runs/plain-seed0
    """
    from rich.console import Console

    from sightline.rating import crowd
    from sightline.rating import results as counting
    from sightline.rating.batch import Contender
    from sightline.rating.server import serve
    from sightline.rating.study import open_study
    from sightline.serving.listening import is_loopback

    names = explainers.split(",")
    given = runs or []
    if given and len(given) * len(names) != 2:
        raise SightlineError(
            f"{len(given)} runs and {len(names)} explainers ({explainers}) were given; expected two runs and one "
            "explainer, or one run and two explainers"
        )
    contenders = [Contender(run, name) for run in given for name in names]
    study = open_study(output, contenders, images=images, split=split, seed=seed, progress=True)
    console = Console()
    if import_batch is not None:
        new, known = crowd.import_batch(study, import_batch)
        console.print(f"{new} votes are new, {known} were there already", highlight=False)
    if export_batch is not None:
        typer.echo(crowd.export_batch(study, export_batch, url))
    if results:
        found = counting.results(study)
        console.print(counting.table(found))
        for path in counting.write(study, found, output):
            typer.echo(path)
    if results or export_batch is not None or import_batch is not None:
        return

    def announce(link: str) -> None:
        console.print(f"Raters open [bold]{link}[/bold]", highlight=False, soft_wrap=True)
        if not is_loopback(host):
            console.print("Other machines can reach this page, and what they send is not encrypted.", style="yellow")
        console.print(f"Ctrl+C ends it; `sightline rate -o {output} --results` counts the votes.", style="dim")

    serve(study, host, port, announce)
