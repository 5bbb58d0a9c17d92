"""`sightline masks`."""

from pathlib import Path
from typing import Annotated

import typer

from sightline.cli.mask_exchange import Command as Command
from sightline.cli.options import (
    ClassNames,
    DatasetName,
    DatasetOptions,
    Mean,
    NumWorkers,
    RunFolder,
    Size,
    Std,
    Weights,
)
from sightline.cli.subject import find_data, find_subject


def masks(
    dataset: DatasetName,
    options: DatasetOptions = None,
    model: Annotated[
        str | None, typer.Option(help="timm/NAME, torchvision/NAME or sightline/NAME, whose maps prompt by points.")
    ] = None,
    weights: Weights = None,
    run: RunFolder = None,
    classes: ClassNames = None,
    size: Size = None,
    mean: Mean = None,
    std: Std = None,
    method: Annotated[str, typer.Option(help="The explainer that makes the maps.")] = "gradcam",
    maps: Annotated[
        Path | None, typer.Option(help="Stored maps (`sightline explain --store`), instead of a model.")
    ] = None,
    boxes: Annotated[
        Path | None,
        typer.Option(help="Boxes to prompt with: a .csv (`sightline boxes`), COCO .json or folder of VOC .xml."),
    ] = None,
    center: Annotated[
        bool,
        typer.Option("--center", help="Assume that the object is in the center of each image: no model, no boxes."),
    ] = False,
    threshold: Annotated[float, typer.Option(help="Smallest value of a map at a point, in [0, 1].")] = 0.5,
    distance: Annotated[
        float, typer.Option(help="Smallest distance of two points, as a share of the shorter side.")
    ] = 0.1,
    segmenter: Annotated[
        str,
        typer.Option(
            help="grabcut, or package.module:function, called with (image (H, W, 3) uint8, points (N, 2) xy, box or None)"
            " for a bool mask (H, W); such as a few lines around SAM."
        ),
    ] = "grabcut",
    split: Annotated[str, typer.Option(help="Split of the dataset.")] = "train",
    num_workers: NumWorkers = 0,
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder to write.")] = Path("masks"),
) -> None:
    """Make a mask for every image of a dataset, from a model's maps or from boxes.

    To resume an interrupted command, run it again. `sightline masks export` and `import` exchange masks with
    annotation tools: see `sightline masks export --help`.

    Example: sightline masks folder root=photos --model torchvision/resnet18 --weights default
    """
    from sightline._core.devices import pick_device
    from sightline.errors import SightlineError
    from sightline.localization.detectors import BOX_DETECTORS
    from sightline.localization.image_maps import ExplainedMaps, StoredMaps
    from sightline.localization.prompts import Prompter, find_segmenter
    from sightline.localization.writing import write_masks

    make = find_segmenter(segmenter)
    data = find_data(dataset, options or [], split, run, labels=False)
    if maps is not None and (model is not None or run is not None):
        raise SightlineError("--maps was given with --model or --run; points come from one of them")
    shown: ExplainedMaps | StoredMaps | None = None
    if maps is not None:
        shown = StoredMaps(maps, data)
    elif model is not None or run is not None:
        subject = find_subject(model, weights, run, classes, size, mean, std)
        subject.model.to(pick_device())
        shown = ExplainedMaps(subject.model, subject.input_spec, method, subject.layer)
    elif boxes is None and not center:
        raise SightlineError(
            "no prompts: give --model NAME --weights FILE, --run RUN, --maps STORE, --boxes FILE or --center"
        )
    given = None if boxes is None else BOX_DETECTORS.create("annotations", file=boxes)
    prompter = Prompter(shown, given, threshold=threshold, distance=distance, center=center)
    done = write_masks(
        data, output, prompter, make, name=segmenter, split=split, num_workers=num_workers, progress=True
    )
    share = done.without / done.images
    typer.echo(f"{done.masks} masks of {done.images} images; {done.without} ({share:.1%}) have no prompt", err=True)
    if done.iou is not None:
        typer.echo(f"mean IoU {done.iou:.3f} with the true masks of {done.judged} images", err=True)
    typer.echo(output)
