"""`sightline explain`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sightline.cli.options import ClassNames, Mean, ModelName, PrecisionName, RunFolder, Size, Std, TargetLayer, Weights
from sightline.cli.subject import find_data, find_subject
from sightline.errors import NotDefinedError, SightlineError, unknown_name

if TYPE_CHECKING:
    from torch import Tensor

    from sightline.explainers import Explainer
    from sightline.models import OpenedModel


def explain(
    images: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[IMAGE]...",
            help="Images, or folders of them; with --store, KEY=VALUE options of the dataset.",
        ),
    ] = None,
    model: ModelName = None,
    weights: Weights = None,
    run: RunFolder = None,
    classes: ClassNames = None,
    size: Size = None,
    mean: Mean = None,
    std: Std = None,
    methods: Annotated[
        str | None, typer.Option(help="Explainers, joined by commas. [default: gradcam,hirescam,layercam,eigencam]")
    ] = None,
    target: Annotated[str | None, typer.Option(help="Class to explain: name or index. [default: as predicted]")] = None,
    against: Annotated[
        str | None,
        typer.Option(
            help="Explain why it is the target and not this class: name or index, or `next` for the most likely other."
        ),
    ] = None,
    layer: TargetLayer = None,
    precision: PrecisionName = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Image file to write.")] = Path("panel.png"),
    store: Annotated[
        Path | None,
        typer.Option(help="Folder for the maps of a whole dataset by one method, instead of an image."),
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="Dataset for --store: a name, or a folder. [default: the run's]")
    ] = None,
    split: Annotated[str, typer.Option(help="Split of the dataset, for --store.")] = "train",
    dtype: Annotated[str, typer.Option(help="Number format of stored maps: uint8 or float16.")] = "uint8",
    num_workers: Annotated[int, typer.Option(min=0, help="Number of processes that load images, for --store.")] = 0,
    devices: Annotated[
        int, typer.Option(min=1, help="Number of GPUs, or of processes if there is no GPU, for --store.")
    ] = 1,
) -> None:
    """Draw the saliency maps of some images by several methods, or store the maps of a whole dataset.

    With --store, an interrupted command is resumed when you run it again.

    Example: sightline explain cat.jpg --model torchvision/resnet50 --weights default
    """
    given = images or []
    if store is None:
        if data is not None:
            raise SightlineError("--data was given without --store; add --store FOLDER, where the maps are written")
        if not given:
            raise SightlineError("no image was given; for the maps of a whole dataset, pass --data NAME --store FOLDER")
        named = (methods or "gradcam,hirescam,layercam,eigencam").split(",")
        from sightline._core.shared_work import processes
        from sightline.explainers import create_explainer
        from sightline.inference.precision import running_in
        from sightline.reporting.plots.drawing import check_figure_name

        check_figure_name(output)
        explainers = {name: create_explainer(name) for name in named}
        subject = find_subject(model, weights, run, classes, size, mean, std)
        with running_in(precision or "fp32"):  # type: ignore
            paths = [Path(image) for image in given]
            processes().once(lambda: _draw(paths, explainers, subject, target, against, layer, output))
        return
    if against is not None:
        raise SightlineError(
            "--against was given with --store, whose maps explain one class each; leave one of them out"
        )
    if target not in (None, "label", "predicted"):
        raise SightlineError(f"--target is {target!r}; with --store it is 'predicted' or 'label'")
    if len(named := (methods or "gradcam").split(",")) != 1:
        raise SightlineError(
            f"--methods names {len(named)} methods; a store holds the maps of one; name one method, and one folder per method"
        )

    from sightline._core.devices import pick_device
    from sightline._core.processes import is_first_process
    from sightline.explainers.maps import compute_maps

    subject = find_subject(model, weights, run, classes, size, mean, std)
    if devices == 1:
        subject.model.to(pick_device())
    dataset = find_data(data, given, split, run, labels=target == "label", subject=subject)
    compute_maps(
        subject.model, dataset, store, named[0], targets=target or "predicted",  # type: ignore
        layer=layer or subject.layer, input_spec=subject.input_spec, dtype=dtype, num_workers=num_workers, devices=devices,  # type: ignore
        precision=precision or "fp32", progress=True,  # type: ignore
    )  # fmt: skip
    if is_first_process():
        typer.echo(store)


def _draw(
    images: list[Path],
    asked: "dict[str, Explainer]",
    subject: "OpenedModel",
    target: str | None,
    against: str | None,
    layer: str | None,
    output: Path,
) -> None:
    import torch
    from torchvision import tv_tensors

    from sightline._core.progress import ProgressBar, bar
    from sightline.data.transforms import eval_transform
    from sightline.explainers import layer_for
    from sightline.explainers.given import explain_in_chunks
    from sightline.given import as_images
    from sightline.network.logits import probabilities_of
    from sightline.network.targets import Contrast, Targets
    from sightline.reporting.overlay import show
    from sightline.reporting.plots.drawing import save_figure
    from sightline.reporting.plots.panel import panel

    see = eval_transform(subject.input_spec.size[0])
    found = [each for path in images for each in as_images(path)]
    pixels = torch.stack([see(tv_tensors.Image(image)) for _, image in found])
    with torch.no_grad():
        probabilities = probabilities_of(subject.model.eval()(subject.input_spec.normalize(pixels)))
    likeliest = probabilities.argmax(1)
    targets = likeliest if target is None else torch.full_like(likeliest, _class_index(target, subject.names))
    question: Targets = targets
    if against is not None:
        question = Contrast(targets, None if against == "next" else _class_index(against, subject.names))
    maps: dict[str, Tensor | None] = {}
    with ProgressBar(True, "explaining", len(asked) * len(found)) as shown:
        for number, (name, explainer) in enumerate(asked.items(), 1):
            shown.update(description=f"explaining by {name}")
            where = layer_for(name, layer or subject.layer)
            try:
                maps[name] = explain_in_chunks(
                    explainer, subject.model, pixels, question, where, subject.input_spec, shown.advance
                )
            except NotDefinedError as error:
                shown.print(str(error))
                maps[name] = None
            shown.update(completed=number * len(found))
    with bar(True, "drawing", None):
        overlay = show(pixels, maps, [Path(name).name for name, _ in found])
        saved = save_figure(panel(overlay, probabilities, targets.tolist(), subject.names), output)
    typer.echo(saved)


def _class_index(target: str, names: list[str]) -> int:
    if target in names:
        return names.index(target)
    if target.isdecimal() and int(target) < len(names):
        return int(target)
    raise unknown_name("class", target, names)
