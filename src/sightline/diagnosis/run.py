"""Does a model look at the object? The first question about a model, before any training."""

import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from sightline._core.checks import check_choice
from sightline._core.fingerprint import fingerprint
from sightline._core.shared_work import processes
from sightline.data.batch import Batch
from sightline.data.dataset import ImageDataset
from sightline.datasets.derived.relabeled import match_classes
from sightline.diagnosis.checks import Answers, ask, background_alone, swapped_background
from sightline.diagnosis.examples import Examples, Picture, both_maps, find_confusions, find_extremes, shown_rows
from sightline.diagnosis.maps import BASELINES, MapMeasurements, measure_maps
from sightline.diagnosis.marks import measure_marks
from sightline.diagnosis.measurements import Measurement, by_class, calibrated_ece, chance_levels, measure
from sightline.diagnosis.preprocessing import Preprocessing, PreprocessingCheck, blue_first, check_preprocessing
from sightline.diagnosis.recommendations import TrainingConfig, fix_command, recommend_guides
from sightline.diagnosis.result import Diagnosis, Example
from sightline.diagnosis.shortcuts import find_shortcuts
from sightline.diagnosis.sources import compare_sources, resolve_sources
from sightline.diagnosis.verdict import decide_verdict, hits_by_seen
from sightline.errors import SightlineError
from sightline.explainers import create_explainer
from sightline.given import Normalization, as_dataset, take_batches
from sightline.localization.annotation import MIN_IMAGES, Annotated, Annotation, annotate
from sightline.localization.detectors import BoxDetector
from sightline.metrics import Scorer
from sightline.models.opening import open_model
from sightline.network.input_spec import InputSpec
from sightline.network.layers import LayerChoice
from sightline.network.modes import evaluating
from sightline.statistics.bootstrap import Array

OnPreprocessing = Literal["check", "adopt", "ignore"]
SHOWN = 16  # images on the page


def diagnose(
    model: nn.Module,
    data: Any,
    *,
    input_spec: InputSpec | None = None,
    classes: Sequence[str] | None = None,
    annotation: Annotation = "auto",
    boxes: BoxDetector | None = None,
    saliency: tuple[nn.Module, InputSpec] | None = None,
    samples: int = 200,
    explainer: str = "gradcam",
    layer: LayerChoice | None = None,
    training: TrainingConfig | None = None,
    preprocessing: OnPreprocessing = "check",
    seen: Tensor | None = None,
    shortcuts: bool = True,
    sources: str | Sequence[str] | None = None,
    about: Mapping[str, str] | None = None,
    name: str = "",
    batch_size: int = 32,
    seed: int = 0,
    progress: bool = False,
) -> Diagnosis:
    """Measure whether a classifier uses the object or something else in the image.

    Of several processes that share work, each one asks the model about its share of the images, and each one returns the whole
    diagnosis.

    The model sees every image unchanged, with its background noised, gray and swapped, with its object noised, and without its
    object. Saliency maps are measured too. If the data has regions to avoid, the model also sees images without the marks in
    them and with those of other classes. The images are kept in memory: 0.6 MB each at 224 pixels.

    Args:
        model: a classifier that returns logits (B, K); evaluated on the device it is on, and not changed.
        data: labelled images in any form that `sightline.given.as_dataset` takes: a dataset, a folder, a loader of
            (image, label), a table with paths, a list. Or batches (`Batch`), whose images are in [0, 1] and keep their size.
            Images that cannot be read are left out; a warning and the page name them.
        input_spec: the normalization and the size of the input; None = batches are not normalized, and for other data it is as
            the model says, else that of ImageNet at 224 px, with a warning.
        classes: the name of each logit, by which the classes of a data set are matched; None = the data set's, or their
            indices.
        annotation: where the objects are: see `sightline.localization.annotation.annotate`.
        boxes: the boxes of a data set, such as `AnnotatedBoxes("boxes.csv")` of `sightline.localization.detectors`.
        saliency: a network trained on other images and its normalisation, for boxes where there is no annotation.
        samples: how many images are looked at, drawn at random, as many of each class as there are.
        explainer: of the maps.
        layer: its target layer.
        training: what a run would be trained on, for the commands that are recommended.
        preprocessing: "check" = try the usual other ways to prepare the images, and report if one is clearly better;
            "adopt" = continue with it; "ignore" = do not try.
        seen: (N,) bool, which images of a data set the model was trained on; they are drawn last. None = not known.
        shortcuts: whether to search for what the answers follow: parts, properties and groups of images. It takes about as long
            as all else.
        sources: where the images of a data set come from (hospital, camera, site): a name for each, or "folder:N" or
            "FILE.csv:COLUMN" as in `sightline.diagnosis.sources.read_sources`. None = not known.
        about: further facts about the model and the data for the page, such as the run and the folder.
        name: name of the model on the page.
        batch_size: images that go through the model together.
        seed: random seed of the drawn images, the noise and the pairs.
        progress: show bars with the time that remains.

    Raises:
        SightlineError: an argument is not as above, the model has other classes than the data, or its output is not finite.

    Returns:
        The diagnosis: its `verdict`, the measurements behind it, and `save("page.html")`, which writes the page.

    Examples:
        >>> model, spec = sl.load_model("sightline/small_cnn", classes=2)
        >>> masks = torch.zeros(40, 64, 64, dtype=torch.uint8)
        >>> masks[:, 16:48, 16:48] = 1
        >>> batch = sl.Batch(torch.rand(40, 3, 64, 64), torch.arange(40) % 2, masks=masks)
        >>> diagnosis = sl.diagnose(model, [batch], input_spec=spec, shortcuts=False)
        >>> diagnosis.verdict.answer  # weights are random
        'cannot tell'
    """
    if explainer in BASELINES:
        raise SightlineError(
            f"explainer is {explainer!r}, which is the baseline that maps are compared with; choose another"
        )
    check_choice(OnPreprocessing, preprocessing=preprocessing)
    drawn = {
        "samples": samples,
        "annotation": annotation,
        "boxes": boxes,
        "saliency": saliency,
        "last": seen,
        "seed": seed,
    }
    prepared = _prepare(model, data, classes, input_spec, preprocessing, drawn)
    data, shown, names, input_spec = prepared.data, prepared.shown, prepared.names, prepared.input_spec
    with blue_first(model, prepared.adopted is not None and prepared.adopted.bgr):
        batches = shown.batches(batch_size)
        answers = ask(model, batches, input_spec=input_spec, seed=seed, progress=progress)
        maps = measure_maps(
            model, batches, shown.indices, explainer, input_spec=input_spec, layer=layer, seed=seed, progress=progress
        )
        columns = _columns(answers, maps)
        columns |= measure_marks(model, batches, answers.hits["clean"], input_spec=input_spec, seed=seed)
        arrays = {name: values.double().numpy() for name, values in columns.items()}
        found = _against_chance(arrays, shown, names, maps)
        trained = None if seen is None else hits_by_seen(arrays["accuracy"], seen[shown.indices].numpy())
        verdict = decide_verdict(
            found, len(shown.labels.unique()), trained, prepared.check, prepared.adopted is not None
        )
        marked = verdict.answer == "leans on what it should avoid"
        searched = find_shortcuts(model, shown, maps, input_spec, seed, progress) if shortcuts else None
        several = None
        if sources is not None:
            of_all = len(data) if isinstance(data, ImageDataset) else None
            origin = resolve_sources(sources, shown, of_all)
            several = compare_sources(model, shown, answers.hits["clean"], origin, input_spec)
        if training is not None and shown.skipped:
            training = training.without_unreadable()
        order = (-answers.lean.nan_to_num(-torch.inf)).argsort(stable=True).tolist()
        leaning = [row for row in order[:SHOWN] if not math.isnan(answers.lean[row])]
        grouped = [] if searched is None else [row for cluster in searched.clusters for row in cluster.rows]
        return Diagnosis(
            verdict=verdict,
            preprocessing=prepared.check,
            shortcuts=searched,
            sources=several,
            measurements=found,
            classes=by_class(arrays, shown.labels, names),
            images=[_row(row, shown, answers, columns, names) for row in order],
            names=names,
            examples=_examples(model, shown, answers, maps, explainer, input_spec, layer, grouped),
            worst=[_example(row, shown, answers, maps.saved[row]) for row in leaning],
            recommendations=recommend_guides(shown.kind, shown.boxed, training, marked),
            mend=fix_command(shown.kind, training, marked),
            annotation=_annotation_facts(shown),
            facts={
                "model": name or type(model).__name__,
                "parameters": fingerprint(model),
                **(about or {}),
                **_facts(prepared, seen),
                "explainer": explainer,
                "data": data.fingerprint if isinstance(data, ImageDataset) else "batches",
                "seed": seed,
                "date": f"{datetime.now(UTC):%Y-%m-%d}",
            },
        )


@dataclass(frozen=True)
class _Prepared:
    """The drawn images and their objects, and how the model sees them.

    Attributes:
        data: all images.
        shown: the drawn ones.
        names: a name for each of the model's classes.
        input_spec: the normalization and the size of the input.
        check: other ways to prepare the images, if they were tried.
        adopted: the other way that is continued with; None = as given.
    """

    data: ImageDataset | list[Batch]
    shown: Annotated
    names: list[str]
    input_spec: InputSpec | None
    check: PreprocessingCheck | None = None
    adopted: Preprocessing | None = None


def _prepare(
    model: nn.Module,
    given: Any,
    classes: Sequence[str] | None,
    input_spec: InputSpec | None,
    preprocessing: OnPreprocessing,
    drawn: Mapping[str, Any],
) -> _Prepared:
    """Open the data, draw images with the options of `annotate`, and find how the model sees them."""
    data, input_spec = _open(model, given, classes, input_spec)
    if isinstance(data, ImageDataset) and classes is not None:
        data = match_classes(data, classes, "the model")
    images = data if isinstance(data, ImageDataset) else None
    if images is not None:
        _warn_of_too_few(min(len(images), drawn["samples"]), int((images.labels.unique() >= 0).sum()))
    draw = partial(annotate, data, **drawn)
    shown = draw(size=input_spec.size[0] if input_spec is not None else 0)
    if images is None or min(len(images), drawn["samples"]) >= MIN_IMAGES:
        _warn_of_too_few(int(shown.usable.sum()), len(shown.labels.unique()))
    names = _class_names(model, data, classes, shown, input_spec)
    if preprocessing == "ignore" or input_spec is None:
        return _Prepared(data, shown, names, input_spec)
    check = processes().once(lambda: check_preprocessing(model, images, shown, input_spec))
    if preprocessing == "check" or check.best is None:
        return _Prepared(data, shown, names, input_spec, check)
    if images is not None:
        shown = draw(size=check.best.spec.size[0], fit=check.best.fit)
    return _Prepared(data, shown, names, check.best.input_spec, check, check.best)


def _against_chance(
    arrays: dict[str, Array], shown: Annotated, names: list[str], maps: MapMeasurements
) -> dict[str, Measurement]:
    """Return the measurements by name, each with what chance has."""
    exact = (calibrated_ece(arrays["confidence"]), "exact confidences on as many images")
    chances = {**chance_levels(shown.labels, len(names), maps.chances), "ece": exact}
    return {each.name: each for each in measure(arrays, chances)}


def _facts(prepared: _Prepared, seen: Tensor | None) -> dict[str, Any]:
    """Return facts about the images and how the model sees them, for the page."""
    data, shown, spec = prepared.data, prepared.shown, prepared.input_spec
    height, width = shown.images.shape[-2:]
    return {
        "images": len(shown),
        "images there are": len(data) if isinstance(data, ImageDataset) else len(shown),
        "seen in training": "not known" if seen is None else int(seen[shown.indices].sum()),
        **({"cannot be read": ", ".join(shown.skipped)} if shown.skipped else {}),
        "classes": len(prepared.names),
        "size": f"{width} x {height}",
        **(
            {} if spec is None else {name: ", ".join(f"{v:g}" for v in getattr(spec, name)) for name in ("mean", "std")}
        ),
        "preprocessing": "as given" if prepared.adopted is None else prepared.adopted.name,
    }


def _warn_of_too_few(images: int, classes: int) -> None:
    """Say before any work that no verdict can come of it."""
    if 0 < images < MIN_IMAGES:
        warnings.warn(
            f"{images} images are too few for a verdict; expected at least {MIN_IMAGES}. Give more images, "
            "or a larger number of samples",
            stacklevel=4,
        )
    if classes < 2:
        warnings.warn("all images are of one class, so there can be no verdict; expected two classes", stacklevel=4)


def _open(
    model: nn.Module, data: Any, classes: Sequence[str] | None, input_spec: InputSpec | None
) -> tuple[ImageDataset | list[Batch], InputSpec | None]:
    """Open the images as a dataset or batches, and find how the model sees them."""
    if isinstance(data, ImageDataset) and input_spec is not None:
        return data, input_spec
    batches, data = take_batches(data)
    if batches is not None:
        return batches, input_spec
    with evaluating(model):
        opened = open_model(model, input_spec=input_spec, classes=classes)
    for note in opened.notes:
        warnings.warn(note, stacklevel=4)
    spec = opened.input_spec
    return as_dataset(data, classes=opened.names, normalization=Normalization(spec.mean, spec.std)), spec


def _class_names(
    model: nn.Module,
    data: ImageDataset | Iterable[Batch],
    classes: Sequence[str] | None,
    shown: Annotated,
    input_spec: InputSpec | None,
) -> list[str]:
    """Return a name for each of the model's classes."""
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    number = Scorer(model, input_spec)(shown.images[:1].to(device)).shape[1]
    names = data.classes if classes is None and isinstance(data, ImageDataset) else classes
    names = [str(index) for index in range(number)] if names is None else list(names)
    if len(names) != number:
        raise SightlineError(
            f"the model has {number} classes and there are {len(names)} names of classes; expected one for each, in order"
        )
    if int(shown.labels.max()) >= number:
        raise SightlineError(f"a label is {int(shown.labels.max())}; the model has classes 0 .. {number - 1}")
    return names


def _columns(answers: Answers, maps: MapMeasurements) -> dict[str, Tensor]:
    """Return the value (n,) of each measurement for each image, NaN if it has none."""
    hits = answers.hits
    return {
        "accuracy": hits["clean"],
        "confidence": answers.confidence,
        **{name.replace(" ", "_"): values for name, values in hits.items() if name != "clean"},
        "swap_loss": hits["clean"] - hits["background swapped"],
        "prediction_kept": answers.prediction_kept,
        "prediction_follows_background": answers.prediction_follows_background,
        "rfs": hits["background noised"] - hits["object noised"],
        **maps.values,
    }


def _examples(
    model: nn.Module,
    shown: Annotated,
    answers: Answers,
    maps: MapMeasurements,
    explainer: str,
    input_spec: InputSpec | None,
    layer: LayerChoice | None,
    more: Sequence[int],
) -> Examples:
    """Return the images of confused classes, the best and worst of each class, and more rows, with their maps."""
    confusions = find_confusions(shown.labels, answers.predicted, answers.confidence)
    extremes = find_extremes(shown.labels, answers.hits["clean"], answers.probability)
    wanted = shown_rows(confusions, extremes)
    rows = sorted({*wanted, *more})
    wrong = both_maps(wanted, answers.predicted, shown.labels)
    true: dict[int, Tensor] = {}
    if len(wrong):
        device = next((p.device for p in model.parameters()), torch.device("cpu"))
        images, labels = shown.images[wrong].to(device), shown.labels[wrong].to(device)
        made = create_explainer(explainer)(model, images, labels, layer, input_spec).cpu()
        true = dict(zip(wrong.tolist(), made))
    pictures = {
        row: Picture(row, shown.images[row], shown.regions[row], maps.saved[row].float() / 255, true.get(row))
        for row in rows
    }
    return Examples(confusions, extremes, pictures)


def _example(row: int, shown: Annotated, answers: Answers, saliency: Tensor) -> Example:
    """Return an image with its map and in its changed forms."""
    here, partner = slice(row, row + 1), int(answers.partners[row])
    there = slice(partner, partner + 1)
    image, region = shown.images[here], shown.regions[here]
    swapped = swapped_background(image, region, shown.images[there], shown.regions[there])
    return Example(row, image[0], region[0], saliency.float() / 255, swapped[0], background_alone(image, region)[0])


def _row(
    row: int, shown: Annotated, answers: Answers, columns: dict[str, Tensor], names: Sequence[str]
) -> dict[str, Any]:
    """Return what is known of one image, as plain values."""
    predictions = {"predicted": answers.predicted, "swapped": answers.swapped, "alone": answers.alone}
    return {
        "row": row,
        "index": int(shown.indices[row]),
        "path": shown.paths[row],
        "label": names[int(shown.labels[row])],
        **{name: names[int(each[row])] if int(each[row]) >= 0 else None for name, each in predictions.items()},
        "lean": float(answers.lean[row]),
        "probability": float(answers.probability[row]),
        **{name: float(values[row]) for name, values in columns.items()},
    }


def _annotation_facts(shown: Annotated) -> dict[str, Any]:
    """Where the objects are taken to be, how far to trust it, and their share of the pixels."""
    return {
        "kind": shown.kind,
        "source": shown.source,
        "trust": shown.trust,
        "usable": int(shown.usable.sum()),
        "object_share": float((shown.regions[shown.usable] == 1).float().mean()) if shown.usable.any() else math.nan,
    }
