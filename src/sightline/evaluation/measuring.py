"""A model over the images of a loader, explainers and metrics, with the work they share done once."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from sightline._core.checks import check_choice
from sightline._core.progress import ProgressBar
from sightline._core.shared_work import Processes, processes
from sightline.data.batch import Batch
from sightline.data.loader import own_batches
from sightline.errors import SightlineError
from sightline.evaluation.kept_images import collect_images, concatenate, describe_images, nested_subset, to_bytes
from sightline.evaluation.map_sources import MapSource, Source, make_sources
from sightline.evaluation.meters import Meter, make_meters
from sightline.evaluation.one_pass import OnePass
from sightline.evaluation.precision_change import COMPARED, change_of, rows_of
from sightline.evaluation.result import Curve, Evaluation, Result
from sightline.faithfulness import perturbation
from sightline.inference.precision import Precision, running_in
from sightline.metrics import CurveMetric, Observation, Scorer
from sightline.network.input_spec import InputSpec
from sightline.network.layers import LayerSelection
from sightline.network.logits import hits
from sightline.network.targets import resolve_targets
from sightline.regions.background_sources import backgrounds_of

# The first is what guides mostly train on; the second is trained on by none; the last two never look at the image, or
# at the model, and say what a map scores for nothing.
DEFAULT_EXPLAINERS = ("gradcam", "eigencam", "randomcam", "gaussian")
DEFAULT_METRICS = (
    "accuracy", "worst_group_accuracy", "miou", "pointing_game", "energy_in_mask",
    "insertion", "deletion", "average_drop", "average_increase", "coherency",
)  # fmt: skip

TargetClass = Literal["predicted", "label"]


def evaluate_model(
    model: nn.Module,
    loader: Iterable[Batch],
    explainers: Sequence[str] | Mapping[str, Source] = DEFAULT_EXPLAINERS,
    metrics: Sequence[str] | Mapping[str, Mapping[str, Any]] = DEFAULT_METRICS,
    *,
    input_spec: InputSpec | None = None,
    layer: LayerSelection = None,
    target: TargetClass = "predicted",
    explained: TargetClass | None = None,
    contrast: bool = False,
    max_images_slow: int | None = None,
    gallery: int | Sequence[int] = 0,
    subset_key: str = "",
    seed: int = 0,
    internal_batch_size: int | None = None,
    compiled: bool = False,
    precision: Precision = "fp32",
    progress: bool = False,
) -> Evaluation:
    """Measure a model. Every image is classified once and explained once by each explainer, for any number of metrics.

    Class activation maps come from the pass that classifies the image, unless the model is compiled.

    Of several processes that share work, each one measures every so-many-th batch, and each one returns the whole result.

    Args:
        model: a classifier that returns logits (B, K); evaluated on the device it is on, and not changed.
        loader: yields batches always in the same order, with its number of images as `len(loader.dataset)`; or a list
            of batches. Of an image's several labels the predicted one counts, or the first where that is none of them.
        explainers: names; or, by the name that their results shall have: explainers, functions
            `function(model, inputs, targets)` of other libraries (see `sightline.explainers.FunctionExplainer`), or finished
            maps (N, h, w), one per image index.
        metrics: names, or options by name. One that the data cannot serve (no masks, no groups) is left out, and named
            in `facts`.
        input_spec: normalises images in [0, 1].
        layer: the explainers' target layer.
        target: the class that scores are about: the "predicted" one or the "label".
        explained: the class that maps are about; None = the target.
        contrast: maps explain why it is that class and not the likeliest other one; scores stay those of the class.
        max_images_slow: how many images the slow metrics (`sightline list metrics` names them) see: a random subset that every
            smaller one is part of, and the same for every model; None = all.
        gallery: how many images are kept with their maps, chosen likewise; or their places in the loader's order.
        subset_key: what the random subsets depend on in addition to the number of images, such as the data's fingerprint.
        seed: of the bootstrap.
        internal_batch_size: images in one call to the model, where a metric changes images; None chooses.
        compiled: let `torch.compile` make these calls faster; it takes seconds to minutes first.
        precision: "bf16" runs the model under bfloat16 autocast. What that changes is measured: `facts["precision_change"]`
            compares the values of up to 8 images with those in "fp32".
        progress: show a bar with the time that remains.

    Raises:
        SightlineError: an unknown name or option, no images, maps or scores that are NaN, or a device or model without
            bfloat16.
    """
    check_choice(Precision, precision=precision)
    for argument, choice in (("target", target), ("explained", explained or target)):
        check_choice(TargetClass, **{argument: choice})
    total = _length(loader)
    slow = nested_subset(total, total if max_images_slow is None else max_images_slow, f"slow/{subset_key}")
    kept = _kept(total, gallery, f"gallery/{subset_key}")
    sources = make_sources(explainers, model, layer, input_spec, contrast)
    options = {"model": model, "input_spec": input_spec, "internal_batch_size": internal_batch_size}
    meters, left_out = make_meters(metrics, sources, layer, options)
    measurement = _Measurement(sources, meters, slow, kept)
    compared = nested_subset(total, COMPARED if precision != "fp32" else 0, f"slow/{subset_key}")
    exact = _Measurement(sources, make_meters(metrics, sources, layer, options)[0], slow, torch.zeros_like(kept))
    one_pass = OnePass(Scorer(model, input_spec, internal_batch_size, compiled), sources)
    shared = {
        "scorer": one_pass.scorer,
        "curves": tuple(kind for kind in get_args(perturbation.Curve) if kind in metrics),
        "backgrounds": backgrounds_of(loader),
        "marks": backgrounds_of(loader, "avoid"),
    }
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    group = processes()
    share = len(range(group.rank, total, group.size)) * max(1, len(sources))
    with group.together(), running_in(precision), ProgressBar(progress, "evaluating", share) as bar:
        for given, places in _with_places(loader, total, group):
            batch = given.to(device, non_blocking=True)
            seen, maps = _observe(one_pass, batch, places, target, explained or target, shared)
            measurement.add(seen, maps, places, bar.advance)
            if (some := compared[places]).any():
                few, where = rows_of(batch, some), places[some]
                with running_in("fp32"):
                    seen, maps = _observe(one_pass, few, where, target, explained or target, shared)
                    exact.add(seen, maps, where, lambda n: None)
    if group.size > 1:
        measurement.rows = group.join(measurement.rows)
        measurement.join(group)
        exact.join(group)
    results, samples, curves = _collect(measurement, seed, left_out)
    facts: dict[str, Any] = {
        "n": total, "target": target, "contrast": contrast, "slow_n": int(slow.sum()), "seed": seed, "left_out": left_out,
    }  # fmt: skip
    if precision != "fp32":
        meters_in_fp32 = [meter for some in exact.meters.values() for meter in some]
        change = change_of(samples, meters_in_fp32, compared)
        facts |= {"precision": precision, "precision_change": change}
    return Evaluation(results, samples, curves, collect_images(measurement.images), facts)


JOINED = 64  # batches whose rows become one: many small tensors take several times the memory of their values


@dataclass
class _Measurement:
    """What is measured of each batch, and what is kept of it.

    Attributes:
        sources: Where the maps come from.
        meters: Name of a source -> its meters; None -> those that judge no maps.
        slow: (total,) bool, the images that slow metrics see.
        kept: (total,) bool, the images that are kept with their maps.
        rows: What is known of the images before anything is measured, in parts of one or more batches.
        images: The kept images of each batch.
    """

    sources: list[MapSource]
    meters: dict[str | None, list[Meter]]
    slow: Tensor
    kept: Tensor
    rows: list[dict[str, Tensor]] = field(default_factory=list)
    images: list[dict[str, Tensor]] = field(default_factory=list)

    def add(
        self, observation: Observation, maps: Mapping[str, Tensor], places: Tensor, advance: Callable[[int], None]
    ) -> None:
        """Measure a batch under every explainer; `maps` are those that there are already, by the name of their source."""
        row = _describe(observation)
        self.rows = [*self.rows, row] if len(self.rows) < JOINED else [concatenate([*self.rows, row])]
        kept = self.kept[places]
        described = describe_images(observation, row["index"]) if kept.any() else {}
        for meter in self.meters[None]:
            meter.record(observation, places)
        for source in self.sources:
            judged = source.add_maps(observation, maps.get(source.name))
            self._record(self.meters[source.name], judged, places)
            if described:
                described[f"maps/{source.name}"] = to_bytes(judged.require("maps"))
            advance(len(places))
        if not self.sources:
            advance(len(places))
        if described:
            self.images.append({key: value[kept.to(value.device)].cpu() for key, value in described.items()})

    def join(self, group: Processes) -> None:
        """Put together what all processes have measured and kept; the rows of the images stay those of this process."""
        meters = [meter for some in self.meters.values() for meter in some]
        parts = group.join([(self.images, [meter.parts() for meter in meters])])
        self.images = [image for images, _ in parts for image in images]
        for number, meter in enumerate(meters):
            meter.take([some[number] for _, some in parts])

    def _record(self, meters: Sequence[Meter], judged: Observation, places: Tensor) -> None:
        slow = self.slow[places]
        some = judged.take(slow)  # one object, so insertion and deletion share their work
        for meter in meters:
            if not meter.metric.slow:
                meter.record(judged, places)
            elif slow.any():
                meter.record(some, places[slow])


def _length(loader: Iterable[Batch]) -> int:
    dataset = getattr(loader, "dataset", None)
    if dataset is None and not isinstance(loader, Sequence):
        raise SightlineError(f"loader is a {type(loader).__name__}; expected a DataLoader or a list of batches")
    total = len(dataset) if dataset is not None else sum(len(batch) for batch in loader)
    if total == 0:
        raise SightlineError("no images to evaluate; check the split and num_images")
    return total


def _kept(total: int, gallery: int | Sequence[int], key: str) -> Tensor:
    """Return the images (total,) bool to keep: a random subset, or those at the given positions."""
    if isinstance(gallery, int):
        return nested_subset(total, gallery, key)
    return torch.isin(torch.arange(total), torch.tensor(list(gallery), dtype=torch.int64))


def _with_places(loader: Iterable[Batch], total: int, group: Processes) -> Iterator[tuple[Batch, Tensor]]:
    """Yield the batches of this process with the positions (B,) of their images in the loader's order.

    Raises:
        SightlineError: The loader gives more or fewer images than expected, or another process has an error.
    """
    end = 0
    for place, batch in own_batches(loader, group.rank, group.size):
        group.check()
        end = place + len(batch)
        if end > total:
            raise SightlineError(f"the loader gives more images than the {total} of its dataset")
        yield batch, torch.arange(place, end)
    if group.size == 1 and end < total:
        raise SightlineError(f"the loader gave {end} images; its dataset has {total}")


def _observe(
    one_pass: OnePass,
    batch: Batch,
    places: Tensor,
    target: TargetClass,
    explained: TargetClass,
    shared: Mapping[str, Any],
) -> tuple[Observation, dict[str, Tensor]]:
    """Return a batch with the scores of the model and the classes that scores and maps are about, and maps by their source."""

    def classes_of(probabilities: Tensor, rows: slice) -> dict[TargetClass, Tensor]:
        batch.check_classes(probabilities.shape[1])
        return {
            "label": _judged_label(batch.labels[rows], probabilities),
            "predicted": resolve_targets(None, probabilities),
        }

    indices = places if batch.indices is None else batch.indices
    probabilities, maps = one_pass(batch.images, indices, lambda some, rows: classes_of(some, rows)[explained])
    classes = classes_of(probabilities, slice(None))
    observation = Observation(
        images=batch.images,
        targets=classes[target],
        explained=classes[explained],
        labels=classes["label"],
        masks=batch.masks,
        has_mask=batch.has_mask,
        boxes=batch.boxes,
        has_box=batch.has_box,
        parts=batch.parts,
        avoid=batch.avoid,
        has_avoid=batch.has_avoid,
        indices=indices,
        groups=batch.groups,
        probabilities=probabilities,
        **shared,
    )
    return observation, maps


def _judged_label(labels: Tensor, probabilities: Tensor) -> Tensor:
    """Return the label (B,) against which an image is judged: of several the predicted one, else the first."""
    if labels.ndim == 1:
        return labels
    return torch.where(hits(probabilities, labels), probabilities.argmax(1), labels.argmax(1))


def _describe(observation: Observation) -> dict[str, Tensor]:
    """Return the columns that are known of each image before anything is measured."""
    probability, predicted = observation.require("probabilities").max(1)
    columns = {
        "index": observation.require("indices"),
        "label": observation.require("labels"),
        "predicted": predicted,
        "probability": probability,
        "correct": (predicted == observation.labels).long(),
    }
    if observation.groups is not None:
        columns["group"] = observation.groups
    return {name: column.cpu() for name, column in columns.items()}


def _collect(
    measurement: _Measurement, seed: int, left_out: dict[str, str]
) -> tuple[list[Result], dict[str, Tensor], dict[str, dict[str, Curve]]]:
    """Collect the results, the values of each image and the mean curves; metrics without a value are added to `left_out`."""
    results: list[Result] = []
    samples = concatenate(measurement.rows)
    curves: dict[str, dict[str, Curve]] = {}
    for meter in (meter for some in measurement.meters.values() for meter in some):
        try:
            result = meter.result(seed)
        except SightlineError as error:
            left_out[meter.name] = str(error)
            continue
        results.append(result)
        samples[result.column] = meter.column(len(measurement.slow))
        if isinstance(meter.metric, CurveMetric):
            curve = Curve(torch.tensor(meter.metric.at), meter.metric.curve.cpu())
            curves.setdefault(meter.explainer or "", {})[meter.name] = curve
    return results, samples, curves
