"""`sightline boxes`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from sightline.cli.options import DatasetName, DatasetOptions, Mean, NumWorkers, Size, Std, split_numbers
from sightline.cli.subject import find_data, find_subject


def boxes(
    dataset: DatasetName,
    options: DatasetOptions = None,
    detector: Annotated[
        str,
        typer.Option(help="Box detector: lost, saliency, torchvision, annotations, or one of an installed package."),
    ] = "lost",
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="The detector's options, such as size=480 or file=boxes.json."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="Model of the detectors saliency and lost. [default for lost: timm/vit_small_patch16_224.dino]"
        ),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            help="Weights of the model: a .safetensors or .pth file, or `default`. [default for lost: default]"
        ),
    ] = None,
    run: Annotated[Path | None, typer.Option(help="For saliency: a trained run, instead of --model.")] = None,
    size: Size = None,
    mean: Mean = None,
    std: Std = None,
    split: Annotated[str, typer.Option(help="Split of the dataset.")] = "train",
    num_workers: NumWorkers = 0,
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write: .csv, or .json (COCO).")] = Path(
        "boxes.csv"
    ),
) -> None:
    """Find the boxes of the objects in every image of a dataset.

    To resume an interrupted command, run it again.

    Example: sightline boxes folder root=photos --detector lost
    """
    from sightline._core.devices import pick_device
    from sightline._core.strict import apply_overrides
    from sightline.errors import SightlineError
    from sightline.localization.detectors import BOX_DETECTORS
    from sightline.localization.writing import check_boxes_name, write_boxes
    from sightline.models import load_model
    from sightline.models.opening import normalized_by

    entry = BOX_DETECTORS[detector]
    values: dict[str, Any] = {}
    apply_overrides(values, settings or [])
    needs = entry.capabilities.get("needs_model")
    for option in ("model", "input_spec") if needs else ():
        if option in values:
            raise SightlineError(
                f"--set {option} was given; name the model by --model, and its input by --size, --mean, --std"
            )
    entry.check(values)
    check_boxes_name(output)
    data = find_data(dataset, options or [], split, run, labels=False)
    if needs == "transformer":
        network, spec = load_model(model or "timm/vit_small_patch16_224.dino", weights or "default", size=size)
        spec = normalized_by(spec, split_numbers(mean, "--mean"), split_numbers(std, "--std"))
        typer.echo(f"input: {spec}", err=True)
        values |= {"model": network, "input_spec": spec}
    elif needs == "classifier":
        subject = find_subject(model, weights, run, None, size, mean, std)
        values |= {"model": subject.model, "input_spec": subject.input_spec}
        if subject.layer is not None:
            values.setdefault("layer", subject.layer)
    if needs:
        values["model"].to(pick_device())
    done = write_boxes(data, output, entry(**values), num_workers=num_workers, progress=True)
    typer.echo(f"{done.boxes} boxes in {done.images} images; {done.without} have none", err=True)
    if done.clipped or done.dropped:
        typer.echo(f"{done.clipped} reached beyond their image and were cut off at its border", err=True)
        typer.echo(f"{done.dropped} had no area in their image and were left out", err=True)
    if done.corloc is not None:
        typer.echo(f"CorLoc {done.corloc:.3f} against the masks of {done.judged} images", err=True)
    typer.echo(output)
