"""How the cells of a grid are measured."""

from collections.abc import Iterable

import numpy as np
import torch

from sightline._core.seeding import generator
from sightline._core.user_code import load_function
from sightline.data.files import locate
from sightline.data.loader import create_loader
from sightline.errors import NotDefinedError, SightlineError
from sightline.evaluation.map_sources import Source
from sightline.evaluation.measuring import evaluate_model
from sightline.explainers import create_explainer
from sightline.map_studies.grid_keys import GridKeys, Rows
from sightline.metrics import METRICS
from sightline.network.features import class_features
from sightline.studies.image_study import load_subjects
from sightline.studies.study import (
    Part,
)
from sightline.studies.subject import Subject


class GridWorker:
    """A grid's images and models, opened once."""

    def __init__(self, grid: GridKeys, device: torch.device) -> None:
        for name in grid.metrics:
            METRICS[name]
        self.grid = grid
        self.device = device
        self.selection = grid.selection()
        total = len(self.selection.held_out)
        for key, wanted in [
            ("num_images", grid.num_images),
            *((f"num_images of {r.label}", r.num_images) for r in grid.explainers),
        ]:
            if wanted is not None and wanted > total:
                raise SightlineError(f"{key} is {wanted}; the data has {total} images")
        order = torch.randperm(total, generator=generator(grid.seed, "images")).tolist()
        self.drawn = order[: grid.num_images]
        self.rows = {row.label: row for row in grid.explainers}
        least = min(min(row.num_images or total for row in grid.explainers), len(self.drawn))
        self.kept = set(self.drawn[:least][: grid.gallery])  # images that every row sees
        if any(row.features for row in grid.explainers):
            self.selection.check_training()
        for row in grid.explainers:
            if row.name is not None and row.features is None:
                create_explainer(row.name, **row.options)
        self.sources = {row.label: _given(row) for row in grid.explainers if row.name is None}
        self.subjects = load_subjects(grid.models, device, grid.seed)
        self.datasets = {
            model.label: self.subjects[model.label].match_or_warn(
                self.selection.held_out, strict=model.classes is not None
            )
            for model in grid.models
        }
        for label, dataset in self.datasets.items():
            if dataset is not self.selection.held_out and any(row.features for row in grid.explainers):
                raise SightlineError(
                    f"features: the classes of the data must be those of {label}, in the same order, because they are told by "
                    "their places"
                )

    def work(self, part: str) -> Part:
        """Judge one explainer's maps of one model."""
        model, row = split_part(part, self.subjects)
        subject = self.subjects[model]
        wanted = {
            name: options
            for name, options in self.grid.metrics.items()
            if METRICS[name].capabilities["needs_maps"] == bool(row)
        }
        places = sorted(self.drawn[: self.rows[row].num_images] if row else self.drawn)
        dataset = self.datasets[model]
        if not wanted:
            return Part({"figures": [], "curves": {}, "paths": [], "n": len(places), "about": subject.describe()})
        try:
            found = evaluate_model(
                subject.model,
                create_loader(
                    dataset, size=subject.input_spec.size[0], batch_size=self.grid.batch, train=False, indices=places
                ),
                {row: self._source(row, subject)} if row else {},
                wanted,
                input_spec=subject.input_spec,
                layer=self._layer(row, subject),
                target=self.grid.target,
                explained=self.rows[row].explained if row else None,
                contrast=self.grid.contrast,
                gallery=[place for place, index in enumerate(places) if index in self.kept] if row else 0,
                seed=self.grid.seed,
                compiled=self.grid.compiled,
                precision=self.grid.precision,
                progress=True,
            )
        except NotDefinedError as error:
            return Part({"not_defined": str(error), "figures": [], "curves": {}, "paths": [], "n": 0})
        keys = ("metric", "value", "low", "high", "n", "higher_is_better")
        values = {
            "figures": [{key: getattr(result, key) for key in keys} for result in found.results],
            "curves": {
                metric: {"at": curve.at.tolist(), "score": curve.score.tolist()}
                for metric, curve in found.curves.get(row, {}).items()
            },
            "paths": [dataset.path(place) for place in places],
            "n": len(places),
            "left_out": found.facts["left_out"],
            "about": subject.describe(),
        }
        if "precision_change" in found.facts:
            values["precision_change"] = found.facts["precision_change"]
        tensors = {key: found.samples[key].to(torch.int64) for key in ("index", "label", "predicted")}
        tensors |= {f"values/{r.metric}": found.samples[r.column].float() for r in found.results}
        if found.gallery is not None:
            shown = found.gallery
            tensors |= {"shown": shown.index, "images": shown.images, "maps": shown.maps[row]}
            if found.gallery.masks is not None:
                tensors["masks"] = found.gallery.masks
        return Part(values, tensors)

    def _layer(self, row: str, subject: Subject) -> str | None:
        """Where an explainer by name takes its maps."""
        if not row or self.rows[row].name is None:
            return None
        return self.rows[row].layer or subject.layer_for(str(self.rows[row].name))

    def _source(self, row: str, subject: Subject) -> Source:
        if row in self.sources:
            return self.sources[row]
        wanted = self.rows[row]
        options = dict(wanted.options)
        if wanted.features is not None:
            every, drawn = torch.arange(len(self.selection.classes)), torch.tensor(self.drawn)
            labels = self.selection.held_out.labels[drawn].unique() if wanted.explained == "label" else every
            batches = self.selection.training(labels, subject.input_spec.size[0])
            features = class_features(subject.model, batches, input_spec=subject.input_spec, seed=self.grid.seed)
            options |= {"target": wanted.features, "class_features": features}
        return create_explainer(str(wanted.name), **options)


def _given(row: Rows) -> Source:
    """Return a function, or maps that were made before."""
    if row.maps is not None:
        path = locate(row.maps, f"maps of {row.label}")
        try:
            return torch.from_numpy(np.load(path, allow_pickle=False))
        except (OSError, ValueError, TypeError) as error:
            raise SightlineError(f"maps of {row.label}: {path} is not a .npy file of numbers ({error})") from error
    return load_function(str(row.function), f"function of {row.label}")


def split_part(part: str, models: Iterable[str]) -> tuple[str, str]:
    """Return the model and the explainer in a part's name; either may contain a slash."""
    model = max((m for m in models if part == m or part.startswith(f"{m}/")), key=len)
    return model, part[len(model) + 1 :]
