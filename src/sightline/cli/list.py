"""`sightline list`."""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from sightline.errors import SightlineError

if TYPE_CHECKING:
    from sightline._core.registry import Registry

Kind = Literal["explainers", "guides", "datasets", "models", "metrics", "box-detectors", "query-strategies", "recipes"]


def list(
    kind: Annotated[Kind | None, typer.Argument(help="What to list. [default: everything]")] = None,
) -> None:
    """List registered models, explainers, guides, metrics, datasets and recipes.

    Example: sightline list explainers
    """
    from rich.console import Console
    from rich.table import Table

    console = Console()
    for title, rows in _tables().items():
        if kind in (None, title):
            table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
            table.add_column("name", style="cyan", no_wrap=True)
            table.add_column("")
            table.add_column("capabilities", style="dim")
            for row in rows:
                table.add_row(*row)
            console.print(table, "")


def _tables() -> dict[str, Iterable[tuple[str, str, str]]]:
    """For each kind its rows of name, summary and capabilities, made when they are read."""
    from sightline.acquisition.registry import QUERY_STRATEGIES
    from sightline.data import DATASETS
    from sightline.explainers.registry import EXPLAINERS
    from sightline.guides import GUIDES
    from sightline.localization.detectors import BOX_DETECTORS
    from sightline.metric_base.registry import METRICS
    from sightline.models import MODELS

    return {
        "explainers": _rows(EXPLAINERS),
        "guides": _rows(GUIDES),
        "datasets": _rows(DATASETS),
        "models": _models(MODELS),
        "metrics": _rows(METRICS),
        "box-detectors": _rows(BOX_DETECTORS),
        "query-strategies": _rows(QUERY_STRATEGIES),
        "recipes": _recipes(),
    }


def _rows(registry: "Registry[Any]") -> Iterator[tuple[str, str, str]]:
    for entry in registry:
        able = [name if value is True else f"{name}={value}" for name, value in entry.capabilities.items() if value]
        yield entry.name, entry.summary, ", ".join(able)


def _models(registry: "Registry[Any]") -> Iterator[tuple[str, str, str]]:
    for name, summary, able in _rows(registry):
        yield f"sightline/{name}", summary, able
    yield "timm/<name>", "Any classifier of timm, by the name that timm gives it.", ""
    yield "torchvision/<name>", "Any classifier of torchvision, by the name that torchvision gives it.", ""


def _recipes() -> Iterator[tuple[str, str, str]]:
    from sightline.runs.recipe import shipped_recipes
    from sightline.studies.study import shipped_studies

    shipped = {**shipped_recipes(), **shipped_studies()}
    with suppress(SightlineError):  # without Optuna there are no sweeps
        from sightline.sweeping import shipped_sweeps

        shipped |= shipped_sweeps()
    for name, path in shipped.items():
        first = path.read_text(encoding="utf-8").partition("\n")[0]
        yield name, first.removeprefix("#").strip() if first.startswith("#") else "", ""
