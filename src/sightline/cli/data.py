"""`sightline data`."""

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from sightline.cli.options import named_data
from sightline.errors import SightlineError

if TYPE_CHECKING:
    from rich.console import Console

    from sightline.verification.verify import DatasetReport

SHOWN = 20


def data(
    action: Annotated[
        Literal["list", "prepare", "check"],
        typer.Argument(help="List the datasets, download one and check it, or check one."),
    ],
    name: Annotated[str | None, typer.Argument(help="Name of the dataset.")] = None,
    options: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Options of the dataset, such as root=data/pets."),
    ] = None,
) -> None:
    """List, download and verify datasets.

    A check also finds images that are in several splits, have several labels, or are nearly identical to one in another split.

    Exit code 1 says that something is missing or wrong, or that the numbers of images are not the official ones.

    Example: sightline data check pets root=data/pets
    """
    from rich.console import Console

    from sightline import verification
    from sightline._core.strict import apply_overrides

    console = Console(soft_wrap=True)
    if action == "list":
        if name is not None:
            raise SightlineError(
                f"data list takes no name, and {name} was given; `sightline data check {name}` looks at it"
            )
        _list(console)
        return
    if name is None:
        raise SightlineError(f"data {action} needs the name of a data set; `sightline data list` names them")
    values: dict[str, object] = {}
    name, options = named_data(name, options or [])
    apply_overrides(values, options)
    if action == "prepare":
        verification.download_dataset(name, values)
    found = verification.verify_dataset(name, values, progress=console.is_terminal)
    _show(console, name, found)
    if found.problems:
        raise typer.Exit(1)


def _list(console: "Console") -> None:
    from rich.table import Table

    from sightline.data import DATASETS
    from sightline.data.official import OFFICIAL

    table = Table(box=None, pad_edge=False)
    table.add_column("name", style="cyan", no_wrap=True)
    table.add_column("")
    table.add_column("train", justify="right", no_wrap=True)
    table.add_column("test", justify="right", no_wrap=True)
    table.add_column("from", overflow="fold", style="dim")
    for entry in DATASETS:
        official = OFFICIAL.get(entry.name)
        source = "prepare" if DATASETS.can_fetch(entry.name) else official.source if official else ""
        sizes = (official.train, official.test) if official else (None, None)
        table.add_row(entry.name, entry.summary, *("" if size is None else f"{size:,}" for size in sizes), source)
    console.print(table)


def _show(console: "Console", name: str, found: "DatasetReport") -> None:
    from rich.table import Table

    from sightline.verification.verify import FINDINGS

    table = Table(title=name, title_justify="left", title_style="bold", box=None, pad_edge=False)
    table.add_column("split", style="cyan")
    findings = [kind for kind in FINDINGS if any(kinds.get(kind) for kinds in found.found.values())]
    for column in ("images", *findings):
        table.add_column(column, justify="right")
    for split, kinds in found.found.items():
        table.add_row(split, str(found.images[split]), *(str(len(kinds.get(kind, []))) for kind in findings))
    console.print(table)
    for split, counts in found.classes.items():
        some = [f"{name} {count}" for name, count in counts.items()]
        more = f", and {len(some) - SHOWN} more classes" if len(some) > SHOWN else ""
        line = f"{split}: {len(some)} classes: {', '.join(some[:SHOWN])}{more}"
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    for split, (count, official) in found.counts.items():
        if count == official:
            console.print(f"{split}: {count} images, as officially", highlight=False)
    if found.unlisted:
        console.print(f"{len(found.unlisted)} images belong to no split, such as {found.unlisted[0]}", highlight=False)
    if found.official and (leaks := [*found.leaks, *(found.near_copies or [])]):
        console.print(
            f"{len(leaks)} copies among the official images, such as {leaks[0]}", markup=False, highlight=False
        )
    if found.near_copies is None:
        console.print(
            "nearly identical images were not searched: pip install 'sightline-xai[check]'",
            markup=False,
            highlight=False,
        )
    for line in found.problems[:SHOWN]:
        console.print(line, style="red", markup=False, highlight=False)
    if len(found.problems) > SHOWN:
        console.print(f"... and {len(found.problems) - SHOWN} more", style="red")
    if not found.problems:
        console.print("nothing is wrong", style="green")
