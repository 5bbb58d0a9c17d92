"""How coherent the filter groups of trained models are, and what they were before training."""

from collections.abc import Iterable
from typing import Annotated, Any

import torch
from matplotlib.figure import Figure
from pydantic import Field
from torch import Tensor, nn

from sightline._core.strict import Count
from sightline._core.tensors import at_least_float32
from sightline.data.batch import Batch
from sightline.experiments.outputs.base import OUTPUTS, Output
from sightline.experiments.outputs.runs import FinishedRuns
from sightline.network.filter_groups import Moments, membership, part_coherence, spectral_groups
from sightline.network.input_spec import InputSpec
from sightline.network.layers import LayerChoice
from sightline.network.modes import evaluating
from sightline.network.tap import Tap
from sightline.reporting.markdown import markdown
from sightline.reporting.plots.style import legend_below
from sightline.runs import Run, load_run
from sightline.studies.lines import line_panels
from sightline.studies.study import Part
from sightline.studies.tables import mean_and_spread
from sightline.training.build import build

TIMES = ("before", "after")


@OUTPUTS.register("filter_coherence")
class FilterCoherence(Output):
    """Coherence of filter groups, before and after training.

    Filters are grouped by how similarly they respond to training images, and measured by how similarly they respond to others.
    The similarity, the grouping and the measure are those of icCNN ("Interpretable Compositional Convolutional Neural
    Networks", section 3), also for models that were trained without it.

    Attributes:
        groups: how many groups the filters of the recipe's target layer form.
        split: whose images the groups are measured on; null takes the main test split.
    """

    groups: Annotated[Count, Field(ge=2)]
    split: str | None = None

    def measure(self, run: Run, device: torch.device) -> Part:
        """Measure the model that the run began with, and the trained one."""
        loaded = load_run(run, device)
        parts = build(loaded.recipe)
        found = {}
        for name, model in zip(TIMES, (parts.model, loaded.model)):
            known, others = (
                similarity(model.to(device), parts.plain_loader(split, 0, 1), loaded.layer, parts.spec)
                for split in ("train", self.split or parts.splits.main_test)
            )
            members = membership(spectral_groups(known, self.groups), self.groups)
            found[name] = part_coherence(others, members).item()
        return Part({"coherence": found})

    def table(self, runs: FinishedRuns) -> list[dict[str, Any]]:
        """Return one row per variant and seed, before and after training."""
        return [
            {"variant": row, "seed": int(seed), "column": f"coherence_{time}", "value": value}
            for time in TIMES
            for row, seeds in self._found(runs, time).items()
            for seed, value in seeds.items()
        ]

    def summary(self, runs: FinishedRuns) -> str:
        """Return the coherence before and after training, and the differences from the first variant."""
        before, after = (self._found(runs, time) for time in TIMES)
        rows = [
            [row, str(len(after[row])), *(mean_and_spread(list(found[row].values())) for found in (before, after))]
            for row in after
        ]
        sections = [
            f"Coherence of {self.groups} groups of filters, made from the training images, in the images of "
            f"{self.split or 'the test split'}: 1 if filters of a group are as similar as any others, at most "
            f"{self.groups}; mean ± standard deviation over seeds.",
            markdown(["Variant", "Seeds", "Coherence before training", "after"], rows),
        ]
        if runs.complete:
            sections.append("![coherence before and after training](coherence.png)")
        return "\n\n".join([*sections, *runs.differences_text("After training", after)])

    def figures(self, runs: FinishedRuns) -> dict[str, Figure]:
        """Draw the coherence before and after training."""
        curves = {
            row: {
                seed: {float(place): part.values["coherence"][time] for place, time in enumerate(TIMES)}
                for seed, part in runs.of(row).items()
            }
            for row in runs.rows
        }
        figure, grid = line_panels(runs.lines(curves), x_label="training", y_label="coherence of the groups")
        for axes in grid:
            axes.set_xticks(range(len(TIMES)), TIMES)
        legend_below(figure, grid[0])
        return {"coherence.png": figure}

    def _found(self, runs: FinishedRuns, time: str) -> dict[str, dict[str, float]]:
        """Row -> seed -> the coherence before or after training."""
        return {row: {seed: part.values["coherence"][time] for seed, part in runs.of(row).items()} for row in runs.rows}


def similarity(model: nn.Module, batches: Iterable[Batch], layer: LayerChoice | None, input_spec: InputSpec) -> Tensor:
    """Return how similarly the filters of a layer respond to images: (C, C), see `Moments.similarity`.

    Args:
        model: a classifier; used in eval mode, on the device that it is on.
        batches: of the images.
        layer: None = chosen by the model's family.
        input_spec: normalizes the images.
    """
    tap, moments = Tap(model, layer), Moments()
    device = next(model.parameters()).device
    with evaluating(model), torch.no_grad():
        for batch in batches:
            images = input_spec.normalize(batch.images.to(device))
            moments.add(at_least_float32(tap(images).activations[0]))
    return moments.similarity()
