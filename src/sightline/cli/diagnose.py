"""`sightline diagnose`."""

from pathlib import Path
from typing import Annotated

import typer

from sightline.cli.options import (
    ClassNames,
    DataName,
    DatasetOptions,
    Mean,
    ModelName,
    RunFolder,
    Size,
    Std,
    TargetLayer,
    Weights,
    named_data,
    split_numbers,
)
from sightline.cli.subject import find_data, find_folder, find_subject

LEANS = ("leans on the background", "leans on what it should avoid")
ADVISED = ("leans on the background", "cannot tell")  # the answers after which another training may help


def diagnose(
    options: DatasetOptions = None,
    model: ModelName = None,
    weights: Weights = None,
    size: Size = None,
    mean: Mean = None,
    std: Std = None,
    classes: ClassNames = None,
    run: RunFolder = None,
    data: DataName = None,
    split: Annotated[
        str | None,
        typer.Option(help="Split of the dataset. [default: all images; those that the run was trained on come last]"),
    ] = None,
    samples: Annotated[
        int, typer.Option(min=1, help="Number of images, drawn at random, equally from each class.")
    ] = 200,
    annotation: Annotated[
        str, typer.Option(help="Where the objects are: masks, boxes, grabcut, saliency; auto takes the best available.")
    ] = "auto",
    boxes: Annotated[
        Path | None, typer.Option(help="Boxes of the objects: a COCO or CSV file, such as `sightline boxes` writes.")
    ] = None,
    saliency_model: Annotated[
        str | None, typer.Option(help="Model for saliency boxes, trained on other images.")
    ] = None,
    saliency_weights: Annotated[
        str, typer.Option(help="Weights of the saliency model: a file, or `default`.")
    ] = "default",
    preprocessing: Annotated[
        str | None,
        typer.Option(
            help="Other normalizations, orders of channels, sizes and crops: `check` reports if one is clearly better, "
            "`adopt` continues with it, `ignore` does not try them. "
            "[default: check; ignore for a run and its own data, whose preprocessing is known]"
        ),
    ] = None,
    shortcuts: Annotated[
        bool, typer.Option(help="Search for what the predictions depend on; this doubles the time.")
    ] = True,
    source: Annotated[
        str | None,
        typer.Option(help="Where each image comes from: folder:N, the N-th folder above it, or FILE.csv:COLUMN."),
    ] = None,
    explainer: Annotated[str, typer.Option(help="Explainer of the maps.")] = "gradcam",
    layer: TargetLayer = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="HTML page to write; a JSON file is written next to it.")
    ] = Path("diagnosis.html"),
) -> None:
    """Measure whether a model uses the object, and write a verdict with the values behind it.

    Example: sightline diagnose --run runs/so-loss-seed0
    """
    from sightline._core.devices import pick_device
    from sightline._core.shared_work import processes
    from sightline.diagnosis import diagnose as diagnose_model
    from sightline.diagnosis import write_diagnosis
    from sightline.diagnosis.page import check_page_name
    from sightline.diagnosis.recommendations import read_training
    from sightline.localization.detectors import AnnotatedBoxes
    from sightline.models import load_model

    check_page_name(output)
    if data is not None:
        data, options = named_data(data, options or [])
    subject = find_subject(model, weights, run, classes, size, mean, std)
    saliency = None if saliency_model is None else load_model(saliency_model, saliency_weights)
    subject.model.to(pick_device())
    if preprocessing is None:
        preprocessing = "check" if run is None or data is not None else "ignore"
    if split is None:
        images, seen = find_folder(data, options or [], run, subject)
    else:
        images, seen = find_data(data, options or [], split, run, labels=True, subject=subject), None
    about = {
        "run": run,
        "weights": weights,
        "folder": " ".join([data or "the run’s own data", *(options or [])]),
        "split": split,
        "input": subject.input_spec,
    }
    given = {
        "size": size,
        "mean": split_numbers(mean, "--mean"),
        "std": split_numbers(std, "--std"),
        "classes": None if classes is None else str(classes),
    }
    found = diagnose_model(
        subject.model,
        images,
        input_spec=subject.input_spec,
        annotation=annotation,  # type: ignore[arg-type]
        boxes=None if boxes is None else AnnotatedBoxes(boxes),
        saliency=saliency,
        samples=samples,
        preprocessing=preprocessing,  # type: ignore[arg-type]
        shortcuts=shortcuts,
        sources=source,
        explainer=explainer,
        layer=layer or subject.layer,
        training=read_training(
            run, data, options or [], model, weights, layer, subject.input_spec.size[0], boxes, given
        ),
        seen=seen,
        about={key: str(value) for key, value in about.items() if value is not None},
        name=subject.name,
        progress=True,
    )
    processes().once(lambda: write_diagnosis(found, output))
    typer.echo(f"{str(found)[0].upper()}{str(found)[1:]}")
    if found.shortcuts is not None and found.shortcuts.named:
        typer.echo(f"The predictions follow {found.shortcuts.named}. {found.shortcuts.because}")
    typer.echo(f"Source of the object regions: {found.annotation['source']}. Reliability: {found.annotation['trust']}")
    if found.mend and found.verdict.answer in LEANS:
        typer.echo(f"Recommended first, a new head: {found.mend}")
    if found.recommendations and found.recommendations[0].command and found.verdict.answer in ADVISED:
        before = f"{found.recommendations[0].first} && " if found.recommendations[0].first else ""
        typer.echo(f"Recommended training: {before}{found.recommendations[0].command}")
    typer.echo(output)
