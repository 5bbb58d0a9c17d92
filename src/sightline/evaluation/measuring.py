"""A model over the images of a loader, explainers and metrics, with the work they share done once."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from sightline._core.progress import ProgressBar
from sightline._core.seeding import generator
from sightline._core.tensors import at_least_float32
from sightline.data.batch import Batch
from sightline.errors import SightlineError
from sightline.evaluation.result import Curve, Evaluation, Result, SavedImages
from sightline.evaluation.statistics import metric_interval
from sightline.explainers import Explainer, FunctionExplainer, create_explainer
from sightline.explainers.base import normalize_maps, resize_maps
from sightline.explainers.registry import needs_layer
from sightline.metrics import METRICS, CurveMetric, Observation, PerImageMetric, Scorer, perturbation
from sightline.metrics.accuracy import hits
from sightline.metrics.backgrounds import backgrounds_of
from sightline.metrics.base import explaining
from sightline.network.input_spec import InputSpec
from sightline.network.layers import LayerSelection
from sightline.network.targets import resolve_targets

# The first is what guides mostly train on; the second is trained on by none; the last two never look at the image, or
# at the model, and say what a map scores for nothing.
DEFAULT_EXPLAINERS = ("gradcam", "eigencam", "randomcam", "gaussian")
DEFAULT_METRICS = (
    "accuracy", "worst_group_accuracy", "miou", "pointing_game", "energy_in_mask",
    "insertion", "deletion", "average_drop", "average_increase", "coherency",
)  # fmt: skip

ANNOTATIONS = ("masks", "groups", "parts")  # a metric that needs one leaves batches out that have none

TargetClass = Literal["predicted", "label"]
Source = Explainer | Callable[[nn.Module, Tensor, Tensor], Any] | Tensor
"""The source of maps: an explainer, a function (see `FunctionExplainer`), or finished maps (N, h, w) by image index."""


def evaluate_model(
    model: nn.Module,
    loader: Iterable[Batch],
    explainers: Sequence[str] | Mapping[str, Source] = DEFAULT_EXPLAINERS,
    metrics: Sequence[str] | Mapping[str, Mapping[str, Any]] = DEFAULT_METRICS,
    *,
    input_spec: InputSpec | None = None,
    layer: LayerSelection = None,
    target: TargetClass = "predicted",
    contrast: bool = False,
    max_images_slow: int | None = None,
    gallery: int | Sequence[int] = 0,
    subset_key: str = "",
    seed: int = 0,
    internal_batch_size: int | None = None,
    compiled: bool = False,
    progress: bool = False,
) -> Evaluation:
    """Measure a model. Every image is classified once and explained once by each explainer, whatever is measured.

    Args:
        model: a classifier that returns logits (B, K); evaluated on the device it is on, and left as it was.
        loader: yields batches always in the same order, with its number of images as `len(loader.dataset)`; or a list
            of batches. Of an image's several labels the predicted one counts, or the first where that is none of them.
        explainers: names; or, by the name that their results shall have: explainers, functions
            `function(model, inputs, targets)` of other libraries (see `sightline.explainers.FunctionExplainer`), or finished
            maps (N, h, w), one per image index.
        metrics: names, or options by name. One that the data cannot serve (no masks, no groups) is left out, and named
            in `facts`.
        input_spec: normalises images in [0, 1].
        layer: the explainers' target layer.
        target: the class that maps and scores are about: the "predicted" one or the "label".
        contrast: maps explain why it is that class and not the likeliest other one; scores stay those of the class.
        max_images_slow: how many images the slow metrics (`sightline list metrics` names them) see: a random subset that every
            smaller one is part of, and the same for every model; None = all.
        gallery: how many images are kept with their maps, chosen likewise; or their places in the loader's order.
        subset_key: what the random subsets depend on beside the number of images, such as the data's fingerprint.
        seed: of the bootstrap.
        internal_batch_size: images in one call to the model, where a metric changes images; None chooses.
        compiled: let `torch.compile` make these calls faster; it takes seconds to minutes first.
        progress: show a bar with the time that remains.

    Raises:
        SightlineError: an unknown name or option, no images, or maps or scores that are NaN.
    """
    if target not in get_args(TargetClass):
        raise SightlineError(f"target is {target!r}; expected 'predicted' or 'label'")
    total = _length(loader)
    slow = _subset(total, total if max_images_slow is None else max_images_slow, f"slow/{subset_key}")
    if isinstance(gallery, int):
        kept = _subset(total, gallery, f"gallery/{subset_key}")
    else:
        kept = torch.isin(torch.arange(total), torch.tensor(list(gallery), dtype=torch.int64))
    made = _make_explainers(explainers)
    layers = {name: layer if needs_layer(name) else None for name in made}
    explain = {
        name: explaining(source, model, layers[name], input_spec, contrast)
        for name, source in made.items()
        if isinstance(source, Explainer)
    }
    meters, left_out = _make_meters(
        metrics,
        made,
        {"model": model, "input_spec": input_spec, "internal_batch_size": internal_batch_size},
        layer,
        layers,
    )
    curves = tuple(kind for kind in get_args(perturbation.Curve) if kind in metrics)
    backgrounds = backgrounds_of(loader)
    scorer = Scorer(model, input_spec, internal_batch_size, compiled)
    device = next((p.device for p in model.parameters()), torch.device("cpu"))

    rows: list[dict[str, Tensor]] = []
    shown: list[dict[str, Tensor]] = []
    place = 0
    with ProgressBar(progress, "evaluating", total * max(1, len(made))) as bar:
        for batch in loader:
            here = torch.arange(place, place + len(batch))
            place += len(batch)
            if place > total:
                raise SightlineError(f"the loader gives more images than the {total} of its data set")
            batch = batch.to(device)
            indices = here if batch.indices is None else batch.indices
            probabilities = scorer(batch.images)
            labels = _judged_label(batch, probabilities)
            observation = Observation(
                images=batch.images,
                targets=labels if target == "label" else resolve_targets(None, probabilities),
                labels=labels,
                masks=batch.masks,
                has_mask=batch.has_mask,
                boxes=batch.boxes,
                has_box=batch.has_box,
                parts=batch.parts,
                indices=indices,
                groups=batch.groups,
                probabilities=probabilities,
                scorer=scorer,
                curves=curves,
                backgrounds=backgrounds,
            )
            rows.append(_describe(observation, indices))
            pictures = _pictures(observation, rows[-1]["index"])
            for meter in meters[None]:
                meter.record(observation, here)
            for name, source in made.items():
                if isinstance(source, Tensor):
                    judged = replace(observation, maps=_saved(name, source, observation))
                else:
                    maps = explain[name](batch.images, observation.require("targets"))
                    judged = replace(observation, maps=maps, explain=explain[name])
                some = judged.take(slow[here])  # one object, so that insertion and deletion share their work
                for meter in meters[name]:
                    if not meter.metric.slow:
                        meter.record(judged, here)
                    elif slow[here].any():
                        meter.record(some, here[slow[here]])
                pictures[f"maps/{name}"] = _bytes(judged.require("maps"))
                bar.advance(len(batch))
            if not made:
                bar.advance(len(batch))
            if kept[here].any():
                shown.append({key: value[kept[here].to(value.device)].cpu() for key, value in pictures.items()})
    if place < total:
        raise SightlineError(f"the loader gave {place} images; its data set has {total}")

    samples, results = _concatenate(rows), []
    mean_curves: dict[str, dict[str, Curve]] = {}
    for meter in (meter for some in meters.values() for meter in some):
        try:
            result = meter.result(seed)
        except SightlineError as error:
            left_out[meter.name] = str(error)
            continue
        results.append(result)
        samples[result.column] = meter.column(total)
        if isinstance(meter.metric, CurveMetric):
            curve = Curve(torch.tensor(meter.metric.at), meter.metric.curve.cpu())
            mean_curves.setdefault(meter.explainer or "", {})[meter.name] = curve
    facts = {
        "n": total,
        "target": target,
        "contrast": contrast,
        "slow_n": int(slow.sum()),
        "seed": seed,
        "left_out": left_out,
    }
    return Evaluation(results, samples, mean_curves, _gallery(shown) if shown else None, facts)


@dataclass
class _Meter:
    """One metric under one explainer, and the places of the images that it has seen."""

    name: str
    explainer: str | None
    metric: PerImageMetric
    places: list[Tensor] = field(default_factory=list)

    def record(self, observation: Observation, places: Tensor) -> None:
        """Measure a batch, where it has what the metric needs."""
        if any(getattr(self.metric, f"needs_{name}") and getattr(observation, name) is None for name in ANNOTATIONS):
            return
        self.metric.update_batch(observation)
        self.places.append(places)

    def result(self, seed: int) -> Result:
        """The figure with its interval; a SightlineError where no image has a value."""
        if not self.places:
            missing = [name for name in ANNOTATIONS if getattr(self.metric, f"needs_{name}")]
            raise SightlineError(f"no image has {missing[0]}" if missing else "it was shown no image")
        value = float(self.metric.compute())
        interval = metric_interval(self.metric, seed)
        better = self.metric.higher_is_better
        return Result(self.name, self.explainer, value, interval.low, interval.high, self.metric.n, better)

    def column(self, total: int) -> Tensor:
        """The value (total,) of each image, NaN where it has none."""
        column = torch.full((total,), torch.nan)
        column[torch.cat(self.places)] = self.metric.per_image().cpu()
        return column


def _make_explainers(wanted: Sequence[str] | Mapping[str, Source]) -> dict[str, Explainer | Tensor]:
    if not isinstance(wanted, Mapping):
        return {name: create_explainer(name) for name in wanted}
    return {
        name: source if isinstance(source, Explainer | Tensor) else FunctionExplainer(source)
        for name, source in wanted.items()
    }


def _saved(name: str, maps: Tensor, observation: Observation) -> Tensor:
    """The maps of a batch's images among those that were made before."""
    indices = observation.require("indices").cpu()
    if maps.ndim != 3 or len(maps) <= int(indices.max()):
        raise SightlineError(
            f"the saved maps {name!r} have shape {tuple(maps.shape)}; expected (N, height, width) with N above the greatest "
            f"index of an image, {int(indices.max())}"
        )
    images = observation.require("images")
    found = at_least_float32(maps[indices].to(images.device))
    return normalize_maps(resize_maps(found, (images.shape[-2], images.shape[-1])))


def _make_meters(
    wanted: Sequence[str] | Mapping[str, Mapping[str, Any]],
    explainers: Mapping[str, Explainer | Tensor],
    given: dict[str, Any],
    layer: LayerSelection,
    layers: Mapping[str, LayerSelection],
) -> tuple[dict[str | None, list[_Meter]], dict[str, str]]:
    """The meters of each explainer, and under None those that judge no maps; and what cannot be measured, with the reason."""
    meters: dict[str | None, list[_Meter]] = {None: [], **{name: [] for name in explainers}}
    left_out: dict[str, str] = {}
    for name in wanted:
        entry = METRICS[name]
        needs = entry.capabilities.get
        for explainer in explainers if needs("needs_maps", True) else [None]:
            options = dict(wanted[name]) if isinstance(wanted, Mapping) else {}
            if needs("needs_model"):
                options |= given
            if needs("needs_layer"):
                options |= {"layer": layer}
            if needs("needs_explainer") and explainer is not None:
                if isinstance(explainers[explainer], Tensor):
                    left_out[f"{name}@{explainer}"] = "it explains changed images, and there are saved maps alone"
                    continue
                options |= {"explainer": explainers[explainer], "layer": layers[explainer]}
            metric = entry(**options)
            # One process evaluates; others that training started may be gone, and must not be waited for.
            metric.distributed_available_fn = lambda: False
            meters[explainer].append(_Meter(name, explainer, metric))
    return meters, left_out


def _length(loader: Iterable[Batch]) -> int:
    dataset = getattr(loader, "dataset", None)
    if dataset is None and not isinstance(loader, Sequence):
        raise SightlineError(f"loader is a {type(loader).__name__}; expected a DataLoader or a list of batches")
    total = len(dataset) if dataset is not None else sum(len(batch) for batch in loader)
    if total == 0:
        raise SightlineError("there are no images to evaluate")
    return total


def _subset(total: int, size: int, key: str) -> Tensor:
    """A random subset (total,) bool that holds every smaller one of the same key."""
    if size < 0:
        raise SightlineError(f"a subset of {size} images was asked for; expected 0 or more")
    chosen = torch.zeros(total, dtype=torch.bool)
    chosen[torch.randperm(total, generator=generator(key, total))[:size]] = True
    return chosen


def _judged_label(batch: Batch, probabilities: Tensor) -> Tensor:
    """The label (B,) that an image is judged by: of several the predicted one, or the first where that is none of them."""
    if not batch.multi_label:
        return batch.labels
    return torch.where(hits(probabilities, batch.labels), probabilities.argmax(1), batch.labels.argmax(1))


def _describe(observation: Observation, indices: Tensor) -> dict[str, Tensor]:
    """The columns that are known of each image before anything is measured."""
    probability, predicted = observation.require("probabilities").max(1)
    columns = {
        "index": indices,
        "label": observation.require("labels"),
        "predicted": predicted,
        "probability": probability,
        "correct": (predicted == observation.labels).long(),
    }
    if observation.groups is not None:
        columns["group"] = observation.groups
    return {name: column.cpu() for name, column in columns.items()}


def _concatenate(rows: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    shared = [name for name in rows[0] if all(name in row for row in rows)]
    return {name: torch.cat([row[name] for row in rows]) for name in shared}


def _pictures(observation: Observation, indices: Tensor) -> dict[str, Tensor]:
    """What a gallery keeps of a batch beside its maps."""
    pictures = {"index": indices, "images": _bytes(observation.require("images"))}
    if observation.masks is None:
        pictures["has_mask"] = torch.zeros(len(indices), dtype=torch.bool)
        return pictures
    masks = observation.masks
    if masks.ndim == 4:
        masks = masks[:, 0] if masks.shape[1] == 1 else masks[torch.arange(len(masks)), observation.require("targets")]
    pictures["masks"] = (masks >= 0.5).to(torch.uint8) if masks.is_floating_point() else masks
    pictures["has_mask"] = (
        torch.ones(len(indices), dtype=torch.bool) if observation.has_mask is None else observation.has_mask
    )
    return pictures


def _gallery(shown: list[dict[str, Tensor]]) -> SavedImages:
    whole = _concatenate(shown)
    order = whole["index"].argsort()
    whole = {name: value[order] for name, value in whole.items()}
    maps = {name.removeprefix("maps/"): value for name, value in whole.items() if name.startswith("maps/")}
    return SavedImages(whole["index"], whole["images"], whole.get("masks"), whole["has_mask"], maps)


def _bytes(values: Tensor) -> Tensor:
    """Values in [0, 1] as uint8."""
    return (values.clamp(0, 1) * 255).round().to(torch.uint8)
