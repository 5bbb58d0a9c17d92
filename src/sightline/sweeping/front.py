"""Two metrics at once: which trials no other trial beats in both, such as accuracy and localization."""

from collections.abc import Sequence

from sightline.data.dataset import ImageDataset
from sightline.errors import SightlineError, unknown_name
from sightline.evaluation import evaluate_model
from sightline.explainers.registry import EXPLAINERS
from sightline.metric_base.registry import METRICS
from sightline.runs import Run
from sightline.runs.load_run import load_run


def pareto_front(points: Sequence[Sequence[float]], maximized: Sequence[bool]) -> list[int]:
    """Return the places of the points that no other point dominates.

    A point dominates another if it is as good in every coordinate and better in one. Of equal points all stay.

    Args:
        points: each with as many coordinates.
        maximized: for each coordinate, whether the greater value is the better.
    """
    signed = [[value if up else -value for value, up in zip(point, maximized, strict=True)] for point in points]

    def dominates(one: list[float], other: list[float]) -> bool:
        return one != other and all(a >= b for a, b in zip(one, other))

    return [i for i, point in enumerate(signed) if not any(dominates(other, point) for other in signed)]


def check_front(front: str) -> None:
    """Reject anything but the name of a metric of maps and of an explainer, as in `energy_in_mask@gradcam`.

    Raises:
        ValueError: there is no such metric or explainer, or the metric looks at no maps.
    """
    metric, _, explainer = front.partition("@")
    maps = [name for name, able in METRICS.capabilities().items() if able["needs_maps"]]
    if metric not in maps:
        raise unknown_name("front", front, [f"{name}@gradcam" for name in maps])
    if explainer not in EXPLAINERS:
        raise unknown_name("front", front, [f"{metric}@{name}" for name in EXPLAINERS.names()])


def check_annotation(front: str, split: str, images: ImageDataset) -> None:
    """Reject a second metric that no image of the validation split can have.

    Raises:
        SightlineError: no image has the masks or boxes that the metric needs.
    """
    able = METRICS[front.partition("@")[0]].capabilities
    for need, known in (("masks", images.has_mask), ("boxes", images.has_boxes | images.has_mask)):
        if able[f"needs_{need}"] and not known.any():
            raise SightlineError(
                f"front is {front!r}, and no image of the split {split!r} has {need}; choose another metric"
            )


def front_rises(front: str) -> bool:
    """Return whether the greater value of the second metric is the better."""
    return bool(METRICS[front.partition("@")[0]].capabilities["higher_is_better"])


def measure_front(run: Run, split: str, front: str) -> float:
    """Return the second metric of a trial, on a validation split, by the weights that its run stands for.

    Raises:
        SightlineError: no image of the split has what the metric needs.
    """
    metric, _, explainer = front.partition("@")
    loaded = load_run(run)
    loader = loaded.loader(loaded.splits[split], loaded.recipe.batch_size)
    found = evaluate_model(
        loaded.model, loader, [explainer], [metric], input_spec=loaded.input_spec, layer=loaded.layer,
        max_images_slow=loaded.recipe.evaluation.max_images_slow, precision=loaded.recipe.evaluation.precision,
    )  # fmt: skip
    for result in found.results:
        if result.column == front and result.n:
            return result.value
    raise SightlineError(f"front is {front!r}; expected a metric that the images of the split {split!r} can serve")
