"""`sightline rate`."""

from pathlib import Path
from typing import Annotated

import typer

from sightline.errors import SightlineError


def rate(
    runs: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[RUN_A] [RUN_B]", help="Two runs; or one, for two explainers; or none, for --output's."
        ),
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="The study's folder; what is there goes on.")] = Path(
        "rating"
    ),
    explainers: Annotated[
        str, typer.Option(help="Whose maps are shown: one name for two runs, two joined by a comma for one.")
    ] = "gradcam",
    images: Annotated[
        int | None, typer.Option(min=1, help="Images that are drawn. [default: 100, or the study's]")
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="Where they are drawn from. [default: the main test split, or the study's]")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of all that is drawn. [default: 0, or the study's]")] = None,
    host: Annotated[str, typer.Option(help="Address to serve at; 0.0.0.0 lets other machines in.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to serve at; 0 = any.")] = 8370,
    results: Annotated[
        bool, typer.Option("--results", help="Count the votes; write votes.csv and results.json.")
    ] = False,
    export_batch: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Write the pairs as a crowdsourcing batch.")
    ] = None,
    url: Annotated[str | None, typer.Option(help="Where the batch's pictures will be found.")] = None,
    import_batch: Annotated[
        Path | None, typer.Option(metavar="CSV", help="Take in the results of such a batch.")
    ] = None,
) -> None:
    """Serve a local page for pairwise human evaluation of saliency maps.

    The answers are kept in the study's folder; the command given again goes on with them.

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
