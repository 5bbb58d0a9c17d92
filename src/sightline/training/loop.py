"""The training loop: stages, epochs, steps, and a checkpoint after every epoch."""

import time
from collections.abc import Iterable, Iterator
from itertools import islice
from math import ceil
from typing import Any, cast

import torch
from lightning_fabric import Fabric
from lightning_fabric.wrappers import _FabricModule, _FabricOptimizer
from torch import Tensor

from sightline._core.seeding import derive_seed
from sightline.data.batch import Batch
from sightline.data.loader import EpochSampler
from sightline.errors import RunFailedError, UnwritableError
from sightline.objectives.objective import Objective
from sightline.runs.recipe_parts import Watch
from sightline.runs.run import EpochEnd, Run
from sightline.runs.stage import Stage
from sightline.training.averaging import Averaging, copy_weights
from sightline.training.build import Parts
from sightline.training.cached_stage import Feed, cached_feed
from sightline.training.checkpoint import Checkpoint, State, write_state, write_weights
from sightline.training.convex import HeadFit
from sightline.training.loggers import Loggers
from sightline.training.meter import Meter
from sightline.training.optim import create_optimizer, decayed_groups, rate
from sightline.training.portion import Portion
from sightline.training.processes import on_rank_zero, share
from sightline.training.progress import Display
from sightline.training.validation import validate
from sightline.training.zero_maps import ZeroMapCheck


class Trainer:
    """Trains what a recipe names, and writes the run folder as it goes.

    Args:
        fabric: launched; it knows devices, processes and precision.
        parts: what the recipe names.
        run: the folder.
        loggers: get every epoch, in addition to the folder.
        checkpoint: where to continue from; None = the beginning.
        watch: called after every epoch.
    """

    def __init__(
        self,
        fabric: Fabric,
        parts: Parts,
        run: Run,
        loggers: Loggers,
        checkpoint: Checkpoint | None = None,
        watch: EpochEnd | None = None,
    ) -> None:
        self.fabric = fabric
        self.parts = parts
        self.recipe = parts.recipe
        self.run = run
        self.loggers = loggers
        self.checkpoint = checkpoint
        self.watch = watch
        self.state = State() if checkpoint is None else checkpoint.state
        share = (fabric.global_rank, fabric.world_size)
        self.loader = parts.train_loader(*share)
        self.plain = parts.plain_loader("train", *share)
        self.held_out = {name: parts.plain_loader(name, *share) for name in parts.validation}
        self.steps_an_epoch = ceil(len(self.loader) / self.recipe.gradient_accumulation)
        self.parameters = [p for p in parts.model.parameters() if p.requires_grad]
        self.average: Averaging | None = None
        self.zero_maps = ZeroMapCheck()

    def fit(self) -> State:
        """Train every stage that is not done."""
        stages = self.recipe.stages
        epochs = sum(stage.epochs for stage in stages)
        passes = [stage.epochs * stage.passes for stage in stages]
        visible = self.fabric.is_global_zero
        with Display(sum(passes) * self.steps_an_epoch, epochs, visible) as self.display:
            while self.state.stage < len(stages):
                before = sum(passes[: self.state.stage]) + self.state.stage_epoch
                self.display.at(before * self.steps_an_epoch)
                stage, objective = stages[self.state.stage], self.parts.objectives[self.state.stage]
                if stage.fit == "convex":
                    self.fit_stage(stage, objective)
                else:
                    self.train_stage(stage, objective)
        return self.state

    def fit_stage(self, stage: Stage, objective: Objective) -> None:
        """Fit the head of a stage with `fit: convex`; its row counts as an epoch, without optimizer steps."""
        started = time.perf_counter()
        self.checkpoint, self.average = None, None
        self.feed = Feed(objective, self.loader, self.held_out)
        objective.to(self.fabric.device)
        self.begin_stage(stage, objective)
        self.display.epoch(self.state.epoch + 1)
        values = HeadFit(self.fabric, self.parts, stage, objective, self.display)()
        row = {f"train/{key}": value for key, value in values.items()}
        _check_finite(objective)
        row |= self.validate(objective)
        self.state.images += stage.passes * len(self.parts.splits["train"])
        self.state.seconds += time.perf_counter() - started
        self.finish_epoch(stage, {"stage": self.state.stage, "step": self.state.step, **row}, objective, None)
        if self.watch is not None:
            self.watch(self.state.stage < len(self.recipe.stages))

    def train_stage(self, stage: Stage, objective: Objective) -> None:
        """Train one stage to its end, or to where early stopping ends it."""
        module, optimizer = self.setup(stage, objective)
        number = self.state.stage
        while self.state.stage == number:
            started = time.perf_counter()
            row = self.train_epoch(stage, objective, module, optimizer)
            _check_finite(objective)
            share(objective.buffers())
            objective.synchronize()
            row |= self.validate_epoch(stage, objective)
            self.state.seconds += time.perf_counter() - started
            self.finish_epoch(stage, row, objective, optimizer)
            if self.watch is not None:
                self.watch(self.state.stage < len(self.recipe.stages))

    def setup(self, stage: Stage, objective: Objective) -> tuple[_FabricModule, _FabricOptimizer]:
        """Freeze what the stage does not train, and prepare its sampler and optimizer, restored from the checkpoint if any."""
        self.portion = Portion(stage, objective, self.parts.spec.size)
        self.portion.release(self.parameters)
        cast(EpochSampler, self.loader.sampler).balance(self.strata(stage))
        trained: Any = [parameter for parameter in objective.parameters() if parameter.requires_grad]
        if stage.layer_decay < 1:
            model, blank = objective.unwrap_model(), self.parts.blank()
            trained = decayed_groups(model, trained, stage.start_lr, stage.layer_decay, blank)
        objective.to(self.fabric.device)
        if not self.state.stage_epoch:
            self.begin_stage(stage, objective)
        self.feed = self.fed(stage, objective)
        bare = create_optimizer(self.recipe.optimizer, trained, stage.start_lr)
        module, optimizer = self.fabric.setup(self.feed.module, bare)
        self.average = Averaging(stage.averaging, objective.unwrap_model()) if stage.averaging else None
        if self.checkpoint is not None:
            self.checkpoint.restore_average(self.average.kept if self.average else {})
            self.checkpoint.restore_optimizer(optimizer.optimizer)
            self.fabric.strategy.precision.load_state_dict(self.state.scaler)
            self.checkpoint = None
        return module, optimizer

    def fed(self, stage: Stage, objective: Objective) -> Feed:
        """Return what the stage trains and validates with: its images, or what its frozen part gives."""
        if stage.cache_features is None:
            return Feed(objective, self.loader, self.held_out)
        self.portion.train()
        first, device = self.state.epoch - self.state.stage_epoch, self.fabric.device
        feed, amount = cached_feed(
            self.state.stage, stage, first, objective, self.loader, self.held_out, self.recipe.feature_cache,
            device, self.fabric.autocast,
        )  # fmt: skip
        self.display.print(str(amount))
        return feed

    def begin_stage(self, stage: Stage, objective: Objective) -> None:
        """Let guides look at the model that the stage before has trained, and give the model the weights to start from."""
        objective.on_stage_start(self.plain)
        if stage.start == "initial":
            copy_weights(self.parts.initial, objective.unwrap_model().state_dict())

    def validate_epoch(self, stage: Stage, objective: Objective) -> dict[str, float]:
        """Return the values of all validation splits by `split/metric`; none in an epoch that is not validated.

        Where the stage averages its weights, they are the values of the average, or of the best of several.
        """
        done = self.state.stage_epoch + 1
        due = done == stage.epochs or done % self.recipe.val_interval == 0
        if self.average is None:
            return self.validate(objective) if due else {}
        share(self.average.kept.values())
        if not due:
            self.average.choose(self.average.candidates()[0])
            return {}
        return self.average.choose_best(lambda: self.validate(objective), self.recipe.save_best)

    def validate(self, objective: Objective) -> dict[str, float]:
        """Return the values of all validation splits by `split/metric`."""
        values = {}
        for split, batches in self.feed.validation.items():
            images, replaying = self.parts.splits[split], self.feed.replaying
            for key, value in validate(self.fabric, objective, batches, images, replaying).items():
                values[f"{split}/{key}"] = value
        return values

    def strata(self, stage: Stage) -> Tensor | None:
        """Return what a stage balances: each training image's group or class."""
        images = self.parts.splits["train"]
        return {"groups": images.group_ids, "classes": images.labels, None: None}[stage.balance_by]

    def train_epoch(
        self, stage: Stage, objective: Objective, module: _FabricModule, optimizer: _FabricOptimizer
    ) -> dict[str, float]:
        """One pass over the training split; the values of its row in metrics.csv."""
        state, steps, schedule = self.state, self.steps_an_epoch, stage.schedule or self.recipe.schedule
        seed = derive_seed(self.recipe.seed, state.epoch, self.fabric.global_rank, "training")
        self.fabric.seed_everything(seed % 2**32, verbose=False)
        cast(EpochSampler, self.loader.sampler).set_epoch(state.epoch)
        objective.on_epoch_start(self.plain, state.epoch)
        self.portion.train()
        self.display.epoch(state.epoch + 1)
        meter, mixer = Meter(), self.parts.mixer(stage)
        for done, batches in enumerate(
            _groups(self.feed.batches, self.recipe.gradient_accumulation, self.fabric.device)
        ):
            lr = stage.start_lr * rate(schedule, state.stage_epoch * steps + done, stage.epochs * steps, steps)
            for group in optimizer.param_groups:
                group["lr"] = lr * group.get("lr_scale", 1.0)
            if mixer is not None:
                batches = [mixer(batch, state.epoch) for batch in batches]
            outputs = self.train_step(batches, objective, module, optimizer)
            meter.add_step(outputs, batches)
            self.display.step(sum(output["loss"].item() for output in outputs))
            if self.average is not None:
                self.average.update(state.stage_epoch * steps + done + 1)
        row = meter.compute(self.fabric)
        state.step += steps
        images = int(row.pop("images"))
        if any(objective.weights):
            self.zero_maps.check(row, images, state.epoch + 1)
        state.images += images
        values = {key if key.startswith("n/") else f"train/{key}": value for key, value in row.items()}
        return {"stage": state.stage, "step": state.step, "lr": lr, **values}

    def train_step(
        self, batches: list[Batch], objective: Objective, module: _FabricModule, optimizer: _FabricOptimizer
    ) -> list[dict[str, Tensor]]:
        """One optimiser step with the gradient of one large batch; what the objective returned for each small one."""
        outputs = []
        counts = objective.counts(batches) if len(batches) > 1 else None
        for number, batch in enumerate(batches, start=1):
            with self.fabric.no_backward_sync(module, enabled=number < len(batches)):
                outputs.append(module(batch, counts=counts))
                self.fabric.backward(outputs[-1]["loss"])
        if self.recipe.grad_clip_norm is not None:
            self.fabric.clip_gradients(module, optimizer, max_norm=self.recipe.grad_clip_norm, error_if_nonfinite=False)
        optimizer.step()
        optimizer.zero_grad()
        return outputs

    def finish_epoch(
        self, stage: Stage, row: dict[str, float], objective: Objective, optimizer: _FabricOptimizer | None
    ) -> None:
        """Count the epoch, and write its row and checkpoint: the resume point last, because it is what counts."""
        state = self.state
        state.epoch += 1
        state.stage_epoch += 1
        state.best, improved = _improve(state.best, self.recipe.save_best, row, state.epoch)
        state.patience = _wait(state.patience, self.recipe.early_stopping, row)
        if state.stage_epoch == stage.epochs or self._out_of_patience():
            state.stage, state.stage_epoch, state.patience = state.stage + 1, 0, None
        if self.average is not None and not state.stage_epoch:
            self.average.apply()
        state.scaler = self.fabric.strategy.precision.state_dict()
        row = {"epoch": state.epoch, **row, "seconds": round(state.seconds, 3)}

        def write() -> None:
            self.run.log(row)
            self.run.plot(row)
            weights = objective.unwrap_model().state_dict() if self.average is None else self.average.weights
            if improved:
                write_weights(self.run.best, weights, {"epoch": state.epoch})
            write_weights(self.run.last, weights, {"epoch": state.epoch})
            within = optimizer.optimizer if optimizer is not None and state.stage_epoch else None
            average = self.average.kept if self.average is not None and state.stage_epoch else None
            write_state(self.run.resume_point, self.parts.objectives, within, state, average)
            self.loggers.send()

        if problem := on_rank_zero(self.fabric, write):
            raise UnwritableError(f"{problem}; the last good checkpoint is kept, and --resume continues from it")
        self.display.row(row)

    def _out_of_patience(self) -> bool:
        stopping, reached = self.recipe.early_stopping, self.state.patience
        return stopping is not None and reached is not None and reached[1] >= stopping.patience


def _groups(batches: Iterable[Batch], size: int, device: torch.device) -> Iterator[list[Batch]]:
    """Yield the batches of each optimizer step, on the device; the last step may have fewer."""
    iterator = iter(batches)
    while group := [batch.to(device, non_blocking=True) for batch in islice(iterator, size)]:
        yield group


def _check_finite(objective: Objective) -> None:
    for name, parameter in objective.named_parameters():
        if not torch.isfinite(parameter).all():
            raise RunFailedError(f"{name} became NaN or infinite; the last good checkpoint is kept. Try a lower lr")


def _improve(
    best: tuple[float, int] | None, watch: Watch | None, row: dict[str, float], epoch: int
) -> tuple[tuple[float, int] | None, bool]:
    """Return the best value so far with its epoch, and whether this epoch has it; the first of equal values is kept."""
    if watch is None or watch.metric not in row:
        return best, False
    if better := watch.is_better(row[watch.metric], None if best is None else best[0]):
        best = row[watch.metric], epoch
    return best, better


def _wait(reached: tuple[float, int] | None, watch: Watch | None, row: dict[str, float]) -> tuple[float, int] | None:
    """Return the best value so far and the measurements since; an epoch without validation does not count."""
    if watch is None or watch.metric not in row:
        return reached
    if reached is None or watch.is_better(row[watch.metric], reached[0]):
        return row[watch.metric], 0
    return reached[0], reached[1] + 1
