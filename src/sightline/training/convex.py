"""A stage with `fit: convex`: the head is fitted to the optimum of its loss on features of the frozen trunk."""

from typing import cast

import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from torch import Tensor

from sightline._core.seeding import derive_seed
from sightline.data.loader import EpochSampler
from sightline.guides.attention_gate import attention_loss
from sightline.guides.measured_weights import StageWeights
from sightline.heads import balanced_weights, choose_strength, fit_attention, fit_linear, fit_prototypes
from sightline.models.gates import PoolingGate, pooling_gate_of
from sightline.network.input_spec import to_inputs
from sightline.network.logits import hits, logits_of
from sightline.objectives.losses import task_loss
from sightline.objectives.objective import Objective
from sightline.regions.batch_regions import object_region
from sightline.runs.stage import Stage
from sightline.training.build import Parts
from sightline.training.frozen_features import LastMap, Rows, inputs_of, last_layer
from sightline.training.processes import share
from sightline.training.progress import Display

CHUNK = 256
ATTENTION_IMAGES = 512  # that an attention is fitted on: each has many places, and more change little


class HeadFit:
    """Fits the head of one stage.

    Every process computes all features, so the head does not depend on their number.

    Args:
        fabric: knows device, precision and processes.
        parts: what the recipe names.
        stage: with `fit: convex`.
        objective: the model on its device, with the guides that change images.
        display: gets every batch.
    """

    def __init__(self, fabric: Fabric, parts: Parts, stage: Stage, objective: Objective, display: Display) -> None:
        self.fabric, self.parts, self.stage, self.objective, self.display = fabric, parts, stage, objective, display
        self.model = objective.unwrap_model()
        self.layer = last_layer(self.model)

    @torch.no_grad()
    def __call__(self) -> dict[str, float]:
        """Fit, put what was found into the model, and return the values of the stage's row in metrics.csv."""
        self.objective.train()
        self.model.eval()
        row: dict[str, float] = {}
        if self.stage.head.name == "linear":
            rows = self._collect(None)
        else:
            last = LastMap(self.model, self.parts.blank())
            rows, row = self._pooled(self._collect(last), last)
        weights = self._weights(rows)
        count = len(self.layer.weight)
        if self.stage.head.name == "prototype":
            weight, bias = fit_prototypes(rows.features, rows.labels, weights, classes=count)
        else:
            strength, chosen = self._strength(rows, weights, count)
            row |= {"strength": strength, **chosen}
            weight, bias = fit_linear(rows.features, rows.labels, weights, strength=strength, classes=count)
        self.layer.weight.copy_(weight.reshape(self.layer.weight.shape))
        cast(Tensor, self.layer.bias).copy_(bias)
        gate = pooling_gate_of(self.model)
        share([*self.layer.parameters(), *([] if gate is None else gate.parameters())])
        logits = logits_of(rows.features.double() @ weight.T + bias)
        return {
            "loss": task_loss(logits, rows.labels).mean().item(),
            "accuracy": hits(logits, rows.labels).double().mean().item(),
            **row,
        }

    def _collect(self, last: LastMap | None) -> Rows:
        """Return the last layer's inputs, or the last feature maps with the object, of all passes."""
        loader = self.parts.train_loader(0, 1)
        found: list[Rows] = []
        for number in range(self.stage.passes):
            seed = derive_seed(self.parts.recipe.seed, number, "features")
            self.fabric.seed_everything(seed % 2**32, verbose=False)
            cast(EpochSampler, loader.sampler).set_epoch(number)
            self.objective.on_epoch_start(loader, number)
            for batch in loader:
                batch = self.objective.transform(batch.to(self.fabric.device, non_blocking=True))
                inputs = to_inputs(batch.images, self.objective.input_spec)
                known = batch.labels.cpu(), cast(Tensor, batch.indices).cpu()
                with self.fabric.autocast():
                    if last is None:
                        found.append(Rows(inputs_of(self.layer, self.model, inputs).cpu(), *known))
                    else:
                        maps, read = last.of(inputs)
                        height, width = (maps if read is None else read).shape[2:]
                        region = object_region(batch, self.stage.head.region).at((height, width))
                        wanted = region.free if self.stage.head.region == "avoid" else region.inside
                        objects = wanted.cpu(), region.outside.cpu()
                        found.append(Rows(maps.cpu(), *known, *objects, None if read is None else read.cpu()))
                self.display.step(0.0)
        return _join(found)

    def _pooled(self, rows: Rows, last: LastMap) -> tuple[Rows, dict[str, float]]:
        """Return the last layer's inputs that follow from the maps, pooled by the attention or over the object."""
        attends = self.stage.head.name == "attention_pooling"
        row = self._fit_attention(rows) if attends else {}
        found = []
        for n in torch.arange(len(rows.features)).split(CHUNK):
            maps = rows.features[n].to(self.fabric.device)
            factor = self._attention_factor(rows, n) if attends else self._object_factor(rows, n)
            with self.fabric.autocast():
                found.append(last.head_inputs(maps * factor.to(maps)[:, None]).cpu())
        return Rows(torch.cat(found), rows.labels, rows.indices), row

    def _fit_attention(self, rows: Rows) -> dict[str, float]:
        """Fit the attention of the model's pooling gate, and return its loss on all rows with an object."""
        inside, outside, read = (cast(Tensor, each) for each in (rows.inside, rows.outside, rows.read))
        gate = self._gate()
        some = slice(None, None, -(-len(inside) // ATTENTION_IMAGES))
        weight, bias = fit_attention(read[some], inside[some], outside[some], strength=self.stage.head.strength)
        gate.weight.copy_(weight)
        gate.bias.copy_(bias)
        known = inside.flatten(1).any(1)
        losses = [
            attention_loss(torch.einsum("nchw,c->nhw", maps.double(), weight[0]) + bias, i, o)
            for maps, i, o in zip(*(each[known].split(CHUNK) for each in (read, inside, outside)))
        ]
        return {"attention": torch.cat(losses).mean().item()}

    def _attention_factor(self, rows: Rows, n: Tensor) -> Tensor:
        """Return the factor (n, h, w) of the fitted attention at the places of the last feature map."""
        gate, read = self._gate(), cast(Tensor, rows.read)[n].to(self.fabric.device)
        height, width = rows.features.shape[2:]
        return gate.factor(F.linear(read.movedim(1, -1), gate.weight, gate.bias), (height, width))[..., 0]

    def _object_factor(self, rows: Rows, n: Tensor) -> Tensor:
        """Return the factor (n, h, w) of the mean over the object; over the whole image where none is known."""
        covered = cast(Tensor, rows.inside)[n]
        height, width = rows.features.shape[2:]
        if covered.shape[1:] != (height, width):  # on the places that an attention reads
            covered = F.adaptive_avg_pool2d(covered[:, None], (height, width))[:, 0]
        mean = covered.mean((1, 2), keepdim=True)
        return torch.where(mean > 0, covered / mean.clamp_min(torch.finfo(mean.dtype).tiny), 1.0)

    def _gate(self) -> PoolingGate:
        gate = pooling_gate_of(self.model)
        assert gate is not None  # `build` has put it there
        return gate

    def _strength(self, rows: Rows, weights: Tensor | None, classes: int) -> tuple[float, dict[str, float]]:
        """Return the strength of the penalty, and the validation accuracy that it was chosen by."""
        if self.stage.strength != "auto":
            return self.stage.strength, {}
        name, metric = self._criterion()
        split = self.parts.splits[name]
        features, labels = [], []
        for batch in self.parts.plain_loader(name, 0, 1):
            inputs = to_inputs(batch.images.to(self.fabric.device), self.objective.input_spec)
            with self.fabric.autocast():
                features.append(inputs_of(self.layer, self.model, inputs).cpu())
            labels.append(batch.labels)
        strength, found = choose_strength(
            rows.features, rows.labels, torch.cat(features), torch.cat(labels), weights=weights, classes=classes,
            measure="worst" if metric.startswith("worst") else "mean",
            groups=split.group_ids if metric == "worst_group_accuracy" else None,
        )  # fmt: skip
        return strength, {"chosen_by": found[strength]}

    def _weights(self, rows: Rows) -> Tensor | None:
        """Return the weights of the images, by strata or by the model of the stage before; None = equal ones."""
        if self.stage.balance_by is not None:
            return balanced_weights(self._strata()[rows.indices])
        for guide in self.objective.guides:
            if isinstance(guide, StageWeights):
                return guide.weights.cpu()[rows.indices]
        return None

    def _criterion(self) -> tuple[str, str]:
        """Return the validation split and the accuracy that choose: those of `save_best`, else as the stage balances."""
        watch, balanced = self.parts.recipe.save_best, self.stage.balance_by
        if watch is not None:
            split, _, metric = watch.metric.partition("/")
            if metric.endswith("accuracy"):
                return split, metric
        else:
            split = self.parts.validation[0]  # `build` rejects data without one
        grouped = balanced == "groups" and self.parts.splits[split].group_ids is not None
        return split, "worst_group_accuracy" if grouped else "worst_class_accuracy" if balanced else "accuracy"

    def _strata(self) -> Tensor:
        images = self.parts.splits["train"]
        strata = images.group_ids if self.stage.balance_by == "groups" else images.labels
        return cast(Tensor, strata)  # `build` rejects data without groups


def _join(rows: list[Rows]) -> Rows:
    """Return the rows of several batches as one."""
    parts = zip(*((r.features, r.labels, r.indices, r.inside, r.outside, r.read) for r in rows))
    return Rows(*(None if part[0] is None else torch.cat(part) for part in parts))  # type: ignore[arg-type]
