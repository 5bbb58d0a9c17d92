"""`sightline filters`."""

from pathlib import Path
from typing import Annotated

import typer

from sightline.cli.options import ClassNames, DataName, Mean, ModelName, RunFolder, Size, Std, Weights, split_given
from sightline.cli.subject import find_data, find_subject
from sightline.errors import SightlineError


def filters(
    given: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[IMAGE]... [KEY=VALUE]...",
            help="Images to draw every filter in, instead of those with its highest activations; or options of --data.",
        ),
    ] = None,
    model: ModelName = None,
    weights: Weights = None,
    run: RunFolder = None,
    classes: ClassNames = None,
    size: Size = None,
    mean: Mean = None,
    std: Std = None,
    data: DataName = None,
    split: Annotated[str | None, typer.Option(help="Split of the dataset. [default: the main test split]")] = None,
    count: Annotated[
        int, typer.Option(min=2, help="Number of images, drawn at random, from which filters are chosen.")
    ] = 256,
    layer: Annotated[str | None, typer.Option(help="Layer to look at. [default: the run's, or by the family]")] = None,
    groups: Annotated[
        int | None,
        typer.Option(min=2, help="Number of groups of filters. [default: the run's own groups, or 16]"),
    ] = None,
    numbers: Annotated[
        str | None,
        typer.Option(
            "--filters", help="Filters by number, joined by commas. [default: the most typical of every group]"
        ),
    ] = None,
    columns: Annotated[int, typer.Option(min=1, help="Number of images per filter, if no images are given.")] = 6,
    style: Annotated[str, typer.Option(help="Drawing style: contours or circles.")] = "contours",
    threshold: Annotated[
        float, typer.Option(help="Level of the contours, as a share of the filter's highest activation.")
    ] = 0.5,
    output: Annotated[Path, typer.Option("--output", "-o", help="Image file to write.")] = Path("filters.png"),
) -> None:
    """Draw the regions that the filters of a layer respond to, in groups of filters with similar responses.

    Example: sightline filters --run runs/iccnn-seed0
    """
    import torch
    from torchvision import tv_tensors

    from sightline._core.devices import pick_device
    from sightline._core.seeding import generator
    from sightline.data.image_files import read_image
    from sightline.data.loader import create_loader
    from sightline.data.transforms import eval_transform
    from sightline.models.filter_groups import carried_filter_groups
    from sightline.reporting.plots.drawing import check_figure_name
    from sightline.reporting.plots.filters import show_filters

    check_figure_name(output)
    chosen = None
    if numbers is not None:
        if not all(each.strip().isdecimal() for each in numbers.split(",")):
            raise SightlineError(f"--filters is {numbers!r}; expected numbers joined by commas, such as 3,17")
        chosen = [int(each) for each in numbers.split(",")]
    paths, options = split_given(given)
    subject = find_subject(model, weights, run, classes, size, mean, std)
    dataset = find_data(data, options, split, run, labels=False)
    subject.model.to(pick_device())
    side = subject.input_spec.size[0]
    drawn = torch.randperm(len(dataset), generator=generator(0, "filters"))[:count].sort().values.tolist()
    batches = create_loader(dataset, size=side, batch_size=64, train=False, indices=drawn)
    see = eval_transform(side)
    carried = carried_filter_groups(subject.model) if groups is None and layer in (None, subject.layer) else None
    assigned = (groups or 16) if carried is None else carried[1]
    gallery = show_filters(
        subject.model,
        torch.cat([batch.images for batch in batches]),
        layer or subject.layer,
        subject.input_spec,
        groups=assigned,
        filters=chosen,
        pictures=torch.stack([see(tv_tensors.Image(read_image(path))) for path in paths]) if paths else None,
        columns=columns,
        style=style,  # type: ignore[arg-type]
        threshold=threshold,
    )
    whose = f"{groups or 16} groups" if carried is None else "the run's groups"
    typer.echo(f"coherence {gallery.coherence:.2f} of {whose}; 1 = none", err=True)
    typer.echo(gallery.save(output))
