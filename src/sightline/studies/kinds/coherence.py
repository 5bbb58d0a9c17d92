"""Groups of filters: how coherent those of trained models are, and what they were before training."""

from collections.abc import Iterable
from typing import Annotated, Any, Literal

import torch
from matplotlib.figure import Figure
from pydantic import Field
from torch import Tensor, nn

from sightline._core.strict import Count
from sightline._core.tensors import at_least_float32
from sightline.data.batch import Batch
from sightline.network.filter_groups import Moments, membership, part_coherence, spectral_groups
from sightline.network.input_spec import InputSpec
from sightline.network.layers import LayerChoice
from sightline.network.tap import Tap, evaluating
from sightline.reporting.markdown import markdown
from sightline.studies.kinds.training_runs import TrainingRuns, mean_and_spread
from sightline.studies.lines import Lines, legend, line_panels, seeds_of
from sightline.studies.study import KINDS, Done, Part
from sightline.training import Run, load_run
from sightline.training.build import build

TIMES = ("before", "after")


@KINDS.register("coherence")
class Coherence(TrainingRuns):
    """Filters are grouped by how alike they respond to training images, and judged by how alike they respond to others.

    The similarity, the grouping and the measure are those of icCNN ("Interpretable Compositional Convolutional Neural
    Networks", section 3), alike for models that were trained without it.

    Attributes:
        groups: into how many the filters of the recipe's target layer are put.
        split: whose images the groups are judged by.
    """

    kind: Literal["coherence"]  # type: ignore[assignment]
    groups: Annotated[Count, Field(ge=2)]
    split: str = "test"

    def look(self, run: Run, device: torch.device) -> Part:
        """The coherence of the model that the run began with, and of the one that it ended with."""
        loaded = load_run(run, device)
        parts = build(loaded.recipe)
        found = {}
        for name, model in zip(TIMES, (parts.model, loaded.model)):
            known, others = (
                similarity(model.to(device), parts.plain_loader(split, 0, 1), loaded.layer, parts.spec)
                for split in ("train", self.split)
            )
            members = membership(spectral_groups(known, self.groups), self.groups)
            found[name] = part_coherence(others, members).item()
        return Part({"coherence": found})

    def table(self, done: Done) -> list[dict[str, Any]]:
        """A row a variant, seed and column, and one for the coherence before and after training."""
        found = [
            {"variant": row, "seed": int(seed), "column": f"coherence_{time}", "value": value}
            for time in TIMES
            for row, seeds in self._found(done, time).items()
            for seed, value in seeds.items()
        ]
        return super().table(done) + found

    def summary(self, done: Done) -> str:
        """The coherence before and after, what the seeds settle, and the figures of the runs."""
        before, after = (self._found(done, time) for time in TIMES)
        rows = [
            [row, str(len(after[row])), *(mean_and_spread(list(found[row].values())) for found in (before, after))]
            for row in after
        ]
        sections = [
            f"Coherence of {self.groups} groups of filters, made by the training images, in the images of {self.split}: 1 "
            f"where filters of a group are as alike as any others, at most {self.groups}; mean ± standard deviation over "
            "seeds.",
            markdown(["Variant", "Seeds", "Coherence before training", "after"], rows),
        ]
        if set(self.parts()) <= set(done):
            sections.append("![coherence before and after training](coherence.png)")
        if settled := self.against_first("After training", after):
            sections.append(settled)
        return "\n\n".join([*sections, "## What the runs are worth", super().summary(done)])

    def figures(self, done: Done) -> dict[str, Figure]:
        """The coherence before and after training; and the figures of the runs."""
        found = {place: self._found(done, time) for place, time in enumerate(TIMES)}
        panels: dict[str, Lines] = {
            title: {
                label: {place: list(rows[row].values()) for place, rows in found.items() if rows[row]}
                for label, row in labels.items()
            }
            for title, labels in self.panels.items()
        }
        figure, grid = line_panels(panels, x_label="training", y_label="coherence of the groups")
        for axes in grid:
            axes.set_xticks(range(len(TIMES)), TIMES)
        legend(figure, grid[0])
        return {"coherence.png": figure} | super().figures(done)

    def _found(self, done: Done, time: str) -> dict[str, dict[str, float]]:
        """Row -> seed -> the coherence before or after training."""
        return {
            row.label: {seed: part.values["coherence"][time] for seed, part in seeds_of(done, row.label).items()}
            for row in self.rows
        }


def similarity(model: nn.Module, batches: Iterable[Batch], layer: LayerChoice | None, input_spec: InputSpec) -> Tensor:
    """How alike the filters of a layer respond to images: (C, C), see `Moments.similarity`.

    Args:
        model: a classifier; used in eval mode, on the device that it is on.
        batches: of the images.
        layer: None chooses by the model's family.
        input_spec: normalises the images.
    """
    tap, moments = Tap(model, layer), Moments()
    device = next(model.parameters()).device
    with evaluating(model), torch.no_grad():
        for batch in batches:
            images = input_spec.normalize(batch.images.to(device))
            moments.add(at_least_float32(tap(images).activations[0]))
    return moments.similarity()
