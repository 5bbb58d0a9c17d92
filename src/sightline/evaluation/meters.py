"""One metric under one explainer, over the batches of an evaluation."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from sightline.errors import SightlineError
from sightline.evaluation.map_sources import MapSource
from sightline.evaluation.result import Result
from sightline.metrics import METRICS, Observation, PerImageMetric
from sightline.network.layers import LayerSelection
from sightline.statistics.bootstrap import metric_interval

ANNOTATIONS = (
    "masks",
    "avoid",
    "groups",
    "parts",
)  # a batch without the annotation that a metric needs is left out of it


@dataclass
class Meter:
    """One metric under one explainer, and the places of the images that it has seen."""

    name: str
    explainer: str | None
    metric: PerImageMetric
    places: list[Tensor] = field(default_factory=list)

    def record(self, observation: Observation, places: Tensor) -> None:
        """Measure a batch if it has what the metric needs."""
        if any(getattr(self.metric, f"needs_{name}") and getattr(observation, name) is None for name in ANNOTATIONS):
            return
        self.metric.update_batch(observation)
        self.places.append(places)

    def result(self, seed: int) -> Result:
        """Return the value with its interval; raise SightlineError if no image has a value."""
        if not self.places:
            missing = [name for name in ANNOTATIONS if getattr(self.metric, f"needs_{name}")]
            raise SightlineError(f"no image has {missing[0]}" if missing else "it was shown no image")
        value = float(self.metric.compute())
        interval = metric_interval(self.metric, seed)
        better = self.metric.higher_is_better
        return Result(self.name, self.explainer, value, interval.low, interval.high, self.metric.n, better)

    def column(self, total: int) -> Tensor:
        """Return the value (total,) of each image, NaN where it has none."""
        column = torch.full((total,), torch.nan)
        column[torch.cat(self.places)] = self.metric.per_image().cpu()
        return column

    def parts(self) -> tuple[list[Tensor], dict[str, Any]]:
        """Return the places of each batch, and what the metric has kept of it."""
        return self.places, self.metric.states()

    def take(self, parts: Sequence[tuple[list[Tensor], dict[str, Any]]]) -> None:
        """Replace what was measured by the parts of several processes, in the order of the images."""
        self.places = [places for some, _ in parts for places in some]
        order = sorted(range(len(self.places)), key=lambda number: int(self.places[number][0]))
        self.places = [self.places[number] for number in order]
        states: dict[str, Any] = {}
        for name, kept in parts[0][1].items():
            each = [some[name] for _, some in parts]
            if isinstance(kept, list):
                entries = [entry for some in each for entry in some]
                states[name] = [entries[number] for number in order]
            else:
                states[name] = torch.stack(each).sum(0)
        self.metric.take(states)


def make_meters(
    wanted: Sequence[str] | Mapping[str, Mapping[str, Any]],
    sources: Sequence[MapSource],
    layer: LayerSelection,
    given: Mapping[str, Any],
) -> tuple[dict[str | None, list[Meter]], dict[str, str]]:
    """Create the meters of each source of maps, and those that judge no maps under the key None.

    Args:
        wanted: Names of metrics, or options by name.
        sources: Where the maps come from.
        layer: The target layer, for metrics of layers.
        given: Options of metrics that need the model.

    Returns:
        The meters, and what cannot be measured, with the reason.
    """
    meters: dict[str | None, list[Meter]] = {None: [], **{source.name: [] for source in sources}}
    left_out: dict[str, str] = {}
    for name in wanted:
        entry = METRICS[name]
        needs = entry.capabilities.get
        for source in sources if needs("needs_maps", True) else [None]:
            options = dict(wanted[name]) if isinstance(wanted, Mapping) else {}
            if needs("needs_model"):
                options |= given
            if needs("needs_layer"):
                options |= {"layer": layer}
            if needs("needs_explainer") and source is not None:
                if source.explainer is None:
                    left_out[f"{name}@{source.name}"] = "it explains changed images, and there are saved maps alone"
                    continue
                options |= {"explainer": source.explainer, "layer": source.layer}
            metric = entry(**options)
            # One process evaluates; others that training started may be gone, and must not be waited for.
            metric.distributed_available_fn = lambda: False
            explainer = None if source is None else source.name
            meters[explainer].append(Meter(name, explainer, metric))
    return meters, left_out
