"""What filters of several trained models respond to, in the images that drive each filter the most."""

import math
from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any, Literal

import torch
from matplotlib.figure import Figure
from pydantic import Field, model_validator
from torch import Tensor

from sightline._core.seeding import generator
from sightline._core.strict import Count, Positive, Real
from sightline.data.batch import Batch
from sightline.evaluation.filter_responses import FilterRow, measure_filters
from sightline.galleries.gallery import Trained
from sightline.models.filter_groups import carried_filter_groups
from sightline.reporting.markdown import markdown
from sightline.reporting.plots.filters import FilterGallery, Style
from sightline.runs import Recipe, load_run, read_recipe
from sightline.studies.recipes import RecipeStudy, file_name, overrides
from sightline.studies.study import KINDS, Done, Part, check_labels
from sightline.studies.tables import to_bytes
from sightline.training import train

BATCH = 64


@KINDS.register("filters")
class Filters(RecipeStudy):
    """Filters of models that a recipe trains: of every group the one that is most like the others in it.

    Groups are those that icCNN made in training, or are made here from the similarity of the filters. Every model is an
    ordinary run folder under `runs/`. A run that was killed continues from its checkpoint.

    Attributes:
        models: Models to compare.
        style: `contours` outlines where the filter's map exceeds `threshold`; `circles` marks the effective receptive field of
            its highest activation.
        split: Split of the images; null takes the main test split.
        num_images: Number of images that judge the filters, drawn by the seed.
        groups: Number of groups to make for models that carry none.
        filters: Number of filters to show for each model, those of the first groups.
        images_per_filter: Number of images to show for each filter.
        threshold: Share of the highest activation of a filter that contours follow.
    """

    kind: Literal["filters"]
    models: Annotated[list[Trained], Field(min_length=1)]
    style: Style
    split: str | None = None
    num_images: Annotated[Count, Field(ge=2)] = 1000
    groups: Annotated[Count, Field(ge=2)] = 16
    filters: Positive = 6
    images_per_filter: Positive = 6
    threshold: Annotated[Real, Field(gt=0, lt=1)] = 0.5

    @model_validator(mode="after")
    def _check(self) -> "Filters":
        check_labels("models", [model.label for model in self.models])
        return self

    def parts(self) -> list[str]:
        """Return the label of every model."""
        return [model.label for model in self.models]

    def prepare(self, device: torch.device, folder: Path) -> Callable[[str], Part]:
        """Read every model's recipe."""
        recipes = {model.label: self._recipe(model) for model in self.models}
        return lambda part: self._work(part, recipes[part], folder, device)

    def table(self, done: Done) -> list[dict[str, Any]]:
        """Return a row for each model and filter."""
        return [
            {"model": label, **{key: row[key] for key in ("filter", "group", "members", "on_object")}}
            for label in self.parts()
            if label in done
            for row in done[label].values["rows"]
        ]

    def summary(self, done: Done) -> str:
        """Return the coherence of the groups and the share of the marked pixels on the object."""
        lines = []
        for label in self.parts():
            if label in done:
                values = done[label].values
                shares = [row["on_object"] for row in values["rows"] if row["on_object"] is not None]
                on_object = f"{fmean(shares):.3f}" if shares else "—"
                lines.append([label, f"{values['coherence']:.2f}", str(len(values["rows"])), on_object])
        marked = "outlined" if self.style == "contours" else "circled"
        drawn = [f"{label}:\n\n![{label}]({file_name(label)}.png)" for label in self.parts() if label in done]
        return "\n\n".join(
            [
                f"{self.num_images} images of {self.split or 'the test split'}, drawn by the seed, judge the filters. Each "
                f"filter is shown in the {self.images_per_filter} images that drive it the most. Coherence is 1 if groups mean "
                f"nothing. On the object: share of the {marked} pixels on it, mean over filters and images with a mask.",
                markdown(["Model", "Coherence of the groups", "Filters shown", "On the object"], lines),
                *(drawn if set(self.parts()) <= set(done) else []),
            ]
        )

    def figures(self, done: Done) -> dict[str, Figure]:
        """Draw a line for each filter, in a file for each model."""
        found = {}
        for label in self.parts():
            values, tensors = done[label].values, done[label].tensors
            rows = [
                FilterRow(
                    row["filter"], row["group"], row["members"], images, maps, torch.tensor(row["circles"]), places
                )
                for row, images, maps, places in zip(
                    values["rows"], tensors["images"].float() / 255, tensors["maps"].float() / 255, tensors["places"]
                )
            ]
            gallery = FilterGallery(rows, values["coherence"], self.style, self.threshold)
            found[f"{file_name(label)}.png"] = gallery.figure()
        return found

    def _recipe(self, model: Trained) -> Recipe:
        keys = {"name": file_name(model.label), **self.keys, "seed": self.seed, **model.keys}
        return read_recipe(self.recipe, overrides(keys))

    def _work(self, label: str, recipe: Recipe, folder: Path, device: torch.device) -> Part:
        """Train a model, and measure its filters."""
        run = train(recipe, output=folder / "runs" / file_name(label), resume=True, device=device)
        loaded = load_run(run, device)
        dataset = loaded.splits[self.split or loaded.splits.main_test]
        drawn = torch.randperm(len(dataset), generator=generator(self.seed, "filters"))[: self.num_images]
        batches: list[Batch] = list(loaded.loader(dataset, BATCH, drawn.sort().values.tolist()))
        carried = carried_filter_groups(loaded.model)
        layer, groups = (loaded.layer, self.groups) if carried is None else carried
        found, coherence = measure_filters(
            loaded.model,
            torch.cat([batch.images for batch in batches]),
            layer,
            loaded.input_spec,
            groups=groups,
            filters=None,
            given=None,
            columns=self.images_per_filter,
        )
        objects = torch.cat([_objects(batch) for batch in batches])
        shown = found[: self.filters]
        rows = [
            {
                "filter": row.number,
                "group": row.group,
                "members": row.members,
                "circles": row.circles.tolist(),
                "on_object": self._on_object(row, objects[row.places]),
            }
            for row in shown
        ]
        tensors = {
            "images": to_bytes(torch.stack([row.images for row in shown])),
            "maps": to_bytes(torch.stack([row.maps for row in shown])),
            "places": torch.stack([row.places for row in shown]),
        }
        return Part({"rows": rows, "coherence": coherence}, tensors)

    def _on_object(self, row: FilterRow, objects: Tensor) -> float | None:
        """Return the mean share of marked pixels on the object over images with a mask and a mark; None without one."""
        marked = row.maps > self.threshold if self.style == "contours" else discs(row.circles, objects.shape[-2:])
        shares = (objects * marked).sum((1, 2)) / marked.sum((1, 2))
        known = ~shares.isnan()
        return float(shares[known].mean()) if known.any() else None


def discs(circles: Tensor, size: torch.Size) -> Tensor:
    """Return which pixels (M, H, W) have their center in circles (M, 3) of x, y and radius.

    The center of the first pixel is (0, 0).
    """
    y, x = torch.meshgrid(*(torch.arange(side, dtype=torch.float32) for side in size), indexing="ij")
    centre_x, centre_y, radius = circles[:, :, None, None].unbind(1)
    return ((x - centre_x) ** 2 + (y - centre_y) ** 2 <= radius**2) & (radius > 0)


def _objects(batch: Batch) -> Tensor:
    """Return 1 on the object and 0 off it, (B, H, W); NaN for an image without a mask."""
    if batch.masks is None or batch.has_mask is None:
        return torch.full_like(batch.images[:, 0], math.nan)
    objects = (batch.object_masks() >= 0.5).float()
    return objects.masked_fill(~batch.has_mask[:, None, None], math.nan)
