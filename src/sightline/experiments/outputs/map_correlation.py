"""How well a model that predicts maps has learnt those of its teacher, on images that it was not trained on."""

from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from sightline._core.seeding import generator
from sightline._core.strict import Count
from sightline._core.tensors import at_least_float32
from sightline.errors import NotDefinedError
from sightline.experiments.outputs.base import OUTPUTS, Output
from sightline.experiments.outputs.runs import FinishedRuns
from sightline.explainers import create_explainer
from sightline.faithfulness.similarity import pearson
from sightline.models.two_branch import two_branch_of
from sightline.network.input_spec import to_inputs
from sightline.network.logits import logits_of
from sightline.reporting.markdown import markdown
from sightline.runs import Run, load_run
from sightline.studies.study import Part
from sightline.studies.tables import mean_and_spread

COLUMNS = ("map_correlation/predicted", "map_correlation/true")


@OUTPUTS.register("map_correlation")
class MapCorrelation(Output):
    """Pearson correlation of a model's own map and its teacher's map of the first model.

    The first model is the one whose weights a run began with. Its map is that of the class that the trained model predicts, and
    once more that of the true class, which no model knows for a test image. Both maps are signed. Runs without a branch that
    predicts maps have no value.

    Attributes:
        teacher: Name of the explainer that the model learns from.
        options: Options of this explainer.
        split: The split whose images are explained; null takes the main test split.
        num_images: Number of images, drawn by `seed`.
        seed: Random seed of the draw.
    """

    teacher: str = "partition_shap"
    options: dict[str, Any] = Field(default_factory=lambda: {"raw": True})
    split: str | None = None
    num_images: Annotated[Count, Field(ge=1)] = 200
    seed: int = 0

    def measure(self, run: Run, device: torch.device) -> Part:
        """Explain the same images by the trained model and by the teacher."""
        loaded = load_run(run, device)
        try:
            two_branch_of(loaded.model)
        except NotDefinedError:
            return Part(dict.fromkeys(COLUMNS))
        spec, recipe = loaded.input_spec, loaded.recipe.model
        first, _ = recipe.load(loaded.classes, spec.size[0])
        first.to(device).eval()
        dataset = loaded.splits[self.split or loaded.splits.main_test]
        draw = torch.randperm(len(dataset), generator=generator(self.seed, "map correlation"))[: self.num_images]
        batches = loaded.loader(dataset, 100, sorted(draw.tolist()))
        teacher, own = create_explainer(self.teacher, **self.options), create_explainer("impactx", raw=True)
        found: list[Tensor] = []
        for batch in batches:
            images, labels = batch.images.to(device), batch.labels.to(device)
            with torch.inference_mode():
                predicted = logits_of(loaded.model(to_inputs(images, spec))).argmax(1)
            maps = at_least_float32(own(loaded.model, images, labels, None, spec))
            taught = [teacher(first, images, each.clone(), loaded.layer, spec) for each in (predicted, labels)]
            found.append(torch.stack([pearson(maps, at_least_float32(each)) for each in taught]))
        return Part(dict(zip(COLUMNS, torch.cat(found, 1).mean(1).tolist())) | {"explained": len(draw)})

    def is_complete(self, part: Part) -> bool:
        """Return whether the correlation was measured."""
        return all(column in part.values for column in COLUMNS)

    def table(self, runs: FinishedRuns) -> list[dict[str, Any]]:
        """Return two rows for each variant and seed: of the predicted and of the true class."""
        return [
            {"variant": row, "seed": int(seed), "column": column, "value": part.values[column]}
            for row, seed, part in runs
            for column in COLUMNS
            if part.values[column] is not None
        ]

    def summary(self, runs: FinishedRuns) -> str:
        """Write mean and spread over seeds of the variants that predict maps."""
        rows, number = [], 0
        for row in runs.rows:
            parts = [part.values for part in runs.of(row).values() if part.values[COLUMNS[0]] is not None]
            if parts:
                number = parts[0]["explained"]
                spreads = [mean_and_spread([each[column] for each in parts]) for column in COLUMNS]
                rows.append([row, *spreads, str(len(parts))])
        table = markdown(["Variant", "For the predicted class", "For the true class", "Seeds"], rows)
        return (
            f"Correlation of the predicted maps with the maps of `{self.teacher}`, which explains the first model: "
            f"mean over {number} images of the {self.split or 'test'} split, ± standard deviation over seeds.\n\n{table}"
        )
