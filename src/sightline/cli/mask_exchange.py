"""`sightline masks export` and `sightline masks import`."""

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from sightline.cli.options import DatasetName, DatasetOptions, named_data

exchange = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


class Command(TyperCommand):
    """Hands `masks export` and `masks import` to separate commands; everything else is `masks DATASET`."""

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """Return the context of the command that is meant."""
        commands = typer.main.get_group(exchange).commands
        if args and args[0] in commands:
            return commands[args[0]].make_context(f"{info_name} {args[0]}", args[1:], parent, **extra)
        return super().make_context(info_name, args, parent, **extra)


@exchange.command("export")
def export(
    dataset: DatasetName,
    options: DatasetOptions = None,
    to: Annotated[
        str, typer.Option(help="coco, cvat, label-studio, labelme; heatmaps for maps as gray images.")
    ] = "coco",
    split: Annotated[str | None, typer.Option(help="Split of the dataset. [default: all images]")] = None,
    maps: Annotated[
        Path | None, typer.Option(help="A store of maps (`sightline explain --store`) instead of the masks.")
    ] = None,
    threshold: Annotated[
        float, typer.Option(min=0, max=1, help="Where a map counts as the object, as a share of its maximum.")
    ] = 0.5,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The file, or for labelme and heatmaps the folder.")
    ] = Path("annotations.json"),
) -> None:
    """Write the masks of a dataset, or maps, for an annotation tool.

    Example: `sightline masks export folder root=photos masks=masks --to cvat -o masks.xml`
    """
    from sightline._core.strict import apply_overrides
    from sightline.data import DATASETS
    from sightline.datasets.derived.joined import whole_folder
    from sightline.errors import SightlineError
    from sightline.exchange import export_masks
    from sightline.exchange.heat_maps import export_heat_maps

    values: dict[str, Any] = {}
    dataset, options = named_data(dataset, options or [])
    apply_overrides(values, options)
    splits = DATASETS.create(dataset, **values)
    images = whole_folder(splits) if split is None else splits[split]
    if to == "heatmaps":
        if maps is None:
            raise SightlineError("--to heatmaps needs --maps STORE, which `sightline explain --store` writes")
        typer.echo(f"{export_heat_maps(images, maps, output)} maps", err=True)
    else:
        typer.echo(f"masks of {export_masks(images, to, output, maps, threshold)} images", err=True)
    typer.echo(output)


@exchange.command("import")
def import_(
    source: Annotated[Path, typer.Argument(help="What the tool exported: a file, or for labelme a folder.")],
    images: Annotated[Path, typer.Option(help="The folder of the images.")],
    tool: Annotated[str, typer.Option("--from", help="coco, cvat, label-studio or labelme.")],
    labels: Annotated[
        str | None, typer.Option(help="Labels that count, joined by commas. [default: all but avoid]")
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder to write.")] = Path("masks"),
) -> None:
    """Write the annotations of a tool as a folder of masks, for `masks=FOLDER` or `avoid=FOLDER`.

    Example: `sightline masks import labels/ --from labelme --images photos -o masks`
    """
    from sightline.exchange import import_masks

    named = None if labels is None else labels.split(",")
    typer.echo(f"{import_masks(source, tool, images, output, named)} masks", err=True)
    typer.echo(output)
