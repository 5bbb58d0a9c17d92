"""`sightline fix`."""

from pathlib import Path
from typing import Annotated

import typer

from sightline.cli.options import ClassNames, Mean, ModelName, Size, Std, Weights, split_numbers


def fix(
    model: ModelName = None,
    data: Annotated[Path | None, typer.Option(help="Folder of images in class folders.")] = None,
    weights: Weights = None,
    masks: Annotated[
        Path | None,
        typer.Option(help="Folder of masks with the relative paths of the images; masks of some images are enough."),
    ] = None,
    boxes: Annotated[
        Path | None, typer.Option(help="Boxes of objects: a CSV or COCO file, or a folder of VOC files.")
    ] = None,
    avoid: Annotated[
        Path | None, typer.Option(help="Folder of regions that must not matter, named like masks.")
    ] = None,
    found: Annotated[bool, typer.Option("--found", help="Find the objects instead of marking them.")] = False,
    pretrained: Annotated[
        str | None,
        typer.Option(
            help="Weights of the same architecture from before: a file, timm/NAME, torchvision/NAME, or none. "
            "[default: those of the model's library, if available]"
        ),
    ] = None,
    size: Size = None,
    mean: Mean = None,
    std: Std = None,
    classes: ClassNames = None,
    segmenter: Annotated[
        str, typer.Option(help="Segmenter of clicks on the page: grabcut, or package.module:function.")
    ] = "grabcut",
    host: Annotated[
        str, typer.Option(help="Address of the page; 0.0.0.0 lets other machines in, over plain HTTP.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the page; 0 = any free one.")] = 8371,
    seed: Annotated[int, typer.Option(help="Random seed of crops, exchanged backgrounds and folds.")] = 0,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write.")] = Path("fixed"),
) -> None:
    """Repair a model that uses the background instead of the object.

    Without --masks, --boxes, --avoid or --found, a page opens on which you mark images and refit.

    Example: sightline fix --model timm/resnet18 --weights mine.pth --data photos --found -o fixed
    """

    from sightline.errors import SightlineError
    from sightline.fixing.fix import fix_opened
    from sightline.fixing.mending.mend import open_networks
    from sightline.fixing.reading import read_given
    from sightline.fixing.writing import check_output
    from sightline.models import open_model

    if model is None or data is None:
        raise SightlineError("fix needs a model and images: give --model NAME --weights FILE --data FOLDER")
    means, stds = split_numbers(mean, "--mean"), split_numbers(std, "--std")
    if found and (masks or boxes):
        raise SightlineError("--found was given with --masks or --boxes; give one of them")
    without_page = bool(found or masks or boxes or avoid)
    if without_page:
        check_output(output)
    opened = open_model(model, weights, size=size, mean=means, std=stds, classes=classes)
    for line in opened.describe():
        typer.echo(line, err=True)
    if without_page:
        fixed = fix_opened(opened, model, data, masks, boxes, avoid, pretrained, output, seed=seed, progress=True)
        for note in fixed.notes[len(opened.notes) :]:  # the first ones were printed above
            typer.echo(note, err=True)
        typer.echo(fixed.summary)
        for measured in fixed.table:
            typer.echo(f"{measured.name}: {measured.before:.1%} -> {measured.after:.1%}")
        typer.echo(fixed.report)
        return

    from sightline.fixing.session import Session
    from sightline.marking.app import serve
    from sightline.serving.listening import is_loopback

    given = read_given(opened, data, None, None, None)  # before weights are downloaded: the folder may be wrong
    networks = open_networks(opened, model, pretrained)
    typer.echo("Looking at the images; the page opens when that is done.", err=True)
    session = Session(networks, given, seed)

    def announce(link: str) -> None:
        typer.echo(link)
        if not is_loopback(host):
            typer.echo("Other machines can reach this page, and what they send is not encrypted.", err=True)

    serve(session, session.refit, session.export, output, segmenter=segmenter, host=host, port=port, announce=announce)
