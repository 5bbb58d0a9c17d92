"""`sightline explain`."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sightline.errors import SightlineError, unknown_name

if TYPE_CHECKING:
    from torch import nn

    from sightline.input_spec import InputSpec


@dataclass(frozen=True)
class Subject:
    """A classifier with what is known of it."""

    model: "nn.Module"
    spec: "InputSpec"
    classes: list[str]
    layer: str | None = None


def explain(
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Pictures to explain.")],
    model: Annotated[str | None, typer.Option(help="timm/NAME, torchvision/NAME or sightline/NAME.")] = None,
    weights: Annotated[str | None, typer.Option(help="A .safetensors or .pth file, or `default`.")] = None,
    run: Annotated[Path | None, typer.Option(help="A trained run, in place of --model and --weights.")] = None,
    classes: Annotated[Path | None, typer.Option(help="A file of class names, one a line, for --model.")] = None,
    methods: Annotated[str, typer.Option(help="Explainers, joined by commas.")] = "gradcam,hirescam,layercam,eigencam",
    target: Annotated[str | None, typer.Option(help="Class to explain: name or index. [default: as predicted]")] = None,
    layer: Annotated[str | None, typer.Option(help="Layer to look at. [default: chosen by the model's family]")] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="The picture to write.")] = Path("panel.png"),
) -> None:
    """Draw what a model says of some pictures, and where several methods say that it looked."""
    import torch
    from torchvision import tv_tensors

    from sightline import explainers
    from sightline.data.files import read_image
    from sightline.data.transforms import eval_transform
    from sightline.reporting.overlay import save_figure, show
    from sightline.reporting.panel import panel

    asked = [(name, explainers.create_explainer(name)) for name in methods.split(",")]
    subject = _from_run(run, model) if run else _from_library(model, weights, classes)
    see = eval_transform(subject.spec.size[0])
    pixels = torch.stack([see(tv_tensors.Image(read_image(path))) for path in images])
    with torch.no_grad():
        probabilities = subject.model.eval()(subject.spec.normalize(pixels)).softmax(1)
    likeliest = probabilities.argmax(1)
    targets = likeliest if target is None else torch.full_like(likeliest, _class_index(target, subject.classes))
    where = (layer or subject.layer, subject.spec)
    maps = {name: explainer(subject.model, pixels, targets, *where) for name, explainer in asked}
    overlay = show(pixels, maps, [path.name for path in images])
    typer.echo(save_figure(panel(overlay, probabilities, targets.tolist(), subject.classes), output))


def _from_run(run: Path, model: str | None) -> Subject:
    """The model that a run trained: of its best epoch where the recipe selects one, else of the last."""
    from sightline.models import load_model
    from sightline.training import Run

    if model is not None:
        raise SightlineError("--model and --run were both given; a run knows its model")
    folder = Run(run)
    if not (run / "run.json").is_file():
        raise SightlineError(f"--run {run} is not a run folder: it holds no run.json")
    facts = folder.facts
    name, layer = facts["model"]["name"], facts["model"]["layer"]
    weights = folder.best if folder.best.exists() else folder.last
    classifier, spec = load_model(name, weights, len(facts["classes"]), facts["input_spec"]["size"][0])
    return Subject(classifier, spec, facts["classes"], layer)


def _from_library(model: str | None, weights: str | None, classes: Path | None) -> Subject:
    """A model by name; its classes are those of the file, ImageNet's for 1000, else their indices."""
    from sightline.models import head_parameters, load_model

    if model is None:
        raise SightlineError("explain needs a model: give --model NAME --weights FILE, or --run RUN")
    if weights is None:
        raise SightlineError("--weights was not given; expected a file, or `default` for the library's own")
    classifier, spec = load_model(model, weights)
    count = head_parameters(classifier)[0].shape[0]
    if classes is None:
        return Subject(classifier, spec, _imagenet() if count == 1000 else [str(index) for index in range(count)])
    if not classes.is_file():
        raise SightlineError(f"--classes: there is no file {str(classes)!r}")
    names = classes.read_text(encoding="utf-8").splitlines()
    if len(names) != count:
        raise SightlineError(f"--classes {classes} names {len(names)} classes; the model has {count}")
    return Subject(classifier, spec, names)


def _imagenet() -> list[str]:
    """The first name of each of ImageNet's 1000 classes."""
    from timm.data import ImageNetInfo

    info = ImageNetInfo("imagenet-1k")
    return [info.index_to_description(index).partition(",")[0] for index in range(1000)]


def _class_index(target: str, names: list[str]) -> int:
    if target in names:
        return names.index(target)
    if target.isdigit() and int(target) < len(names):
        return int(target)
    raise unknown_name("class", target, names)
