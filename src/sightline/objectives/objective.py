"""The objective: a model with its guides, one module that any training engine can wrap.

The inner gradient, from the logits to the target layer, is taken inside `forward`: outside it, DDP with a static graph is
silently wrong and mixed precision fails. The caller does one ordinary `backward()` on the loss.
"""

import warnings
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from sightline._core.checks import check_count, check_fraction, check_number
from sightline._core.tensors import outside_unit_range
from sightline.data.batch import Batch
from sightline.errors import NonFiniteLossError, SightlineError
from sightline.explainers.base import resize_maps
from sightline.explainers.places import refuse_few_places
from sightline.network.forms import naming_inputs
from sightline.network.input_spec import InputSpec
from sightline.network.layers import LayerChoice
from sightline.network.logits import logits_of, returned_logits
from sightline.network.tap import StillStatistics, Tap, Tapped, unwrap
from sightline.network.views import IDENTITY, View, check_views
from sightline.objectives.base import Context, Guide, GuideSum
from sightline.objectives.losses import task_loss
from sightline.objectives.terms import check_names, guide_terms, sample_masks, sample_weights_of


class Objective(nn.Module):
    """A classifier and what it is trained for.

    In any loop: `objective(batch)["loss"].backward()`. To train on several processes, wrap the objective, not the model.

    Args:
        model: the classifier, unchanged: `objective.model` is the same module.
        guide: a guide, a sum of guides, or None for the task loss alone.
        layer: the target layer (see `sightline.network.tap.Tap`); None chooses by the model's family.
        input_spec: normalizes images in [0, 1] inside; without it, images are what the model takes.
        task_weight: weight of the cross-entropy; default: what the guide says when it is alone, else 1.
        label_smoothing: label smoothing of the cross-entropy, in [0, 1]; guides see unsmoothed labels.
        task: your own criterion instead of the cross-entropy: a function or module from logits (B, K) and labels, (B,) or
            (B, K), to one loss for each image (B,). Guides that use the cross-entropy themselves still do.
        view_chunk: number of a guide's views that go through the model at a time; None = all in one batch. Smaller chunks bound
            memory by computing the forward pass again during backward; batch norm then sees one chunk at a time.

    Attributes:
        epoch: the epoch that randomness in guides depends on; `on_epoch_start` sets it.
        tap: the model opened at the target layer; None where no guide needs one.

    Raises:
        SightlineError: an argument is not as above, or the guides cannot be combined.

    Examples:
        >>> model, _ = sl.load_model("sightline/small_cnn", classes=2)
        >>> objective = sl.Objective(model)  # without a guide: the cross-entropy
        >>> optimizer = torch.optim.SGD(objective.parameters(), lr=0.1)
        >>> batch = sl.Batch(torch.rand(2, 3, 64, 64), torch.tensor([0, 1]))
        >>> objective(batch)["loss"].backward()
        >>> optimizer.step()
    """

    def __init__(
        self,
        model: nn.Module,
        guide: Guide | GuideSum | None = None,
        *,
        layer: LayerChoice | None = None,
        input_spec: InputSpec | None = None,
        task_weight: float | None = None,
        label_smoothing: float = 0.0,
        task: Callable[[Tensor, Tensor], Tensor] | None = None,
        view_chunk: int | None = None,
    ) -> None:
        super().__init__()
        if isinstance(model, nn.parallel.DistributedDataParallel):
            raise SightlineError("model is wrapped in DistributedDataParallel; wrap the Objective instead")
        if view_chunk is not None:
            check_count(view_chunk=view_chunk)
        check_fraction(label_smoothing=label_smoothing)
        if not isinstance(guide, Guide | GuideSum | None):
            raise SightlineError(
                f"guide is {guide!r}; expected a guide such as SegmentOverlap(), a sum of guides, or None"
            )
        self.model = model
        self.input_spec = input_spec
        self.label_smoothing = label_smoothing
        if task is not None and not callable(task):
            raise SightlineError(f"task is {task!r}; expected a function of logits and labels that returns (B,) losses")
        if task is not None and label_smoothing:
            raise SightlineError("task and label_smoothing were given; smooth the labels inside task, or leave one out")
        self.criterion = task
        self.view_chunk = view_chunk
        self.epoch = 0

        if isinstance(guide, Guide):
            share, weight = guide.loss_weights(alone=True)
            weighted = [(weight, guide)]
        else:
            share = 1.0
            weighted = [
                (s * g.loss_weights(alone=False)[1], g) for s, g in (guide.summands if guide is not None else [])
            ]
        check_number(task_weight=share if task_weight is None else task_weight)
        self.task_weight = share if task_weight is None else float(task_weight)
        self.weights = [weight for weight, _ in weighted]
        for weight, each in weighted:
            check_number(**{f"the weight of {type(each).__name__}": weight})
        self.guides = nn.ModuleList(each for _, each in weighted)
        reweighting = [type(g).__name__ for g in self._guides if type(g).sample_weights is not Guide.sample_weights]
        if len(reweighting) > 1:
            raise SightlineError(
                f"{' and '.join(reweighting)} both reweight samples; an objective can hold one such guide"
            )

        for each in self._guides:
            each.input_spec = input_spec
            each.attach(unwrap(model))
        self.views: tuple[View, ...] = tuple(dict.fromkeys(view for g in self._guides for view in g.views)) or (
            IDENTITY,
        )
        kinds = [type(each) for each in self._guides]  # a second guide of a kind gets its own names
        self._suffixes = [f"_{kinds[:i].count(kind) + 1}" if kind in kinds[:i] else "" for i, kind in enumerate(kinds)]
        self.tap = Tap(model, layer) if any(each.needs_tap or each.needs_layer for each in self._guides) else None
        if self.tap and isinstance(layer, list | tuple) and len(layer) > 1:
            raise SightlineError(
                f"layer names {len(layer)} layers; guides share the activations of one; name one layer"
            )
        self._warned: set[Guide] = set()
        self._known_sizes: set[tuple[int, int]] = set()  # of images for which the layer has enough places

    @property
    def layer(self) -> str | None:
        """The name of the target layer on the unwrapped model, where a guide taps one."""
        return self.tap.layers[0].name if self.tap else None

    def forward(
        self, batch: Batch, counts: dict[str, Tensor] | None = None, replayed: bool = False
    ) -> dict[str, Tensor]:
        """One step's loss, for one ordinary `backward()`.

        Args:
            batch: the images of this process.
            counts: from `counts` for all the batches whose gradients add up to one optimizer step, this one included; then
                the losses of these batches add up to the loss of one large batch. Default: this batch alone.
            replayed: the model runs from kept features (`sightline.finetuning.trunk`); the batch is what `transform` returned,
                and its images only tell their size.

        Returns:
            `loss` (scalar), `task` (scalar, the mean of `task_loss`), each guide's terms by name (scalars, unweighted),
            `logits` (B, K), `maps` (B, H, W) detached where a guide tapped the model, values that a guide wants logged, and
            under `n/...` how many images a guide left out or could not use. Under DDP the scalars are this process's share
            times the number of processes, so averaged gradients are those of one process with all the images.

        Raises:
            NonFiniteLossError: on every process, if the loss of any image of any process is not finite.
            SightlineError: a guide needs what the batch does not have.
        """
        if batch.multi_label:
            self.check_multi_label()
        if self.training and not replayed:
            batch = self.transform(batch)
        context = self._look(batch, batch.images if replayed else self._inputs(batch.images))
        batch.check_classes(context.logits.shape[1])
        task = self._task(context.logits, batch)
        sample_weights = [w for g in self._guides if (w := sample_weights_of(g, context.logits, batch)) is not None]

        terms = [
            ("task", self.task_weight, task, sample_weights[0].to(task) if sample_weights else torch.ones_like(task))
        ]
        for weight, guide, suffix in zip(self.weights, self._guides, self._suffixes):
            for name, values, annotated in guide_terms(guide, context):
                counted = annotated & ~context.left_out.pop(name, torch.zeros_like(annotated))
                terms.append((name + suffix, weight, values, counted.to(values)))
                context.counts[f"{name}{suffix}/unannotated"] = (~annotated).sum()
        check_names([name for name, *_ in terms[1:]])

        known = [total for g in self._guides if (total := g.weight_total(batch)) is not None]
        counts = ({"task": known[0]} if known else {}) | (counts or {})
        totals = torch.stack([
            counts[name].to(shares) if name in counts else shares.detach().sum() for name, _, _, shares in terms
        ])  # fmt: skip
        products = [values * shares for _, _, values, shares in terms]
        finite = torch.stack([product.detach().isfinite() for product in products]).all(0)
        totals, world_size = self._reduce(totals, finite, batch, replayed)

        output = {}
        loss = task.new_zeros(())
        for (name, weight, _, _), product, total in zip(terms, products, totals):
            # This batch's sum over the count of all processes and accumulated batches; a weight of 0 keeps the graph.
            term = product.sum() * (world_size / total.clamp_min(torch.finfo(total.dtype).tiny))
            loss = loss + weight * term
            output[name] = term.detach()
        output |= {"loss": loss, "logits": context.logits}
        if context.identity_maps is not None:
            output["maps"] = resize_maps(context.identity_maps, (batch.images.shape[-2], batch.images.shape[-1]))
        return output | context.figures | {f"n/{name}": count for name, count in context.counts.items()}

    def transform(self, batch: Batch) -> Batch:
        """Return a training batch as the guides change it before the forward pass, which does it by itself."""
        self._warn_without_annotation(batch)
        for guide in self._guides:
            batch = guide.transform(batch, self)
        return batch

    def counts(self, batches: Sequence[Batch]) -> dict[str, Tensor]:
        """How many images of several batches each term averages over, for `forward` under gradient accumulation.

        Raises:
            SightlineError: a guide reweights samples by what only the forward pass will tell.
        """
        if any(batch.multi_label for batch in batches):
            self.check_multi_label()
        totals = {"task": sum((self._task_total(batch) for batch in batches), start=torch.tensor(0.0))}
        for batch in batches:
            for guide, suffix in zip(self._guides, self._suffixes):
                for name, annotated in sample_masks(guide, batch).items():
                    totals[name + suffix] = totals.get(name + suffix, torch.tensor(0.0)) + annotated.sum().cpu()
        return totals

    def check_multi_label(self) -> None:
        """Reject guides that cannot train on images with several labels."""
        for guide in self._guides:
            if not guide.multi_label:
                raise SightlineError(f"{type(guide).__name__} needs images with one label each; these can have several")

    def on_stage_start(self, loader: Iterable[Batch]) -> None:
        """Call before the first epoch of a stage: lets guides measure the model that the stage before has trained."""
        for guide in self._guides:
            guide.on_stage_start(self, loader)

    def on_epoch_start(self, loader: Iterable[Batch], epoch: int) -> None:
        """Call before every epoch: sets the epoch, and lets guides do what needs a pass over the training data."""
        self.epoch = epoch
        for guide in self._guides:
            guide.on_epoch_start(self, loader, epoch)

    def synchronize(self) -> None:
        """Call on every process before a checkpoint: guides share what each process learnt about its own images."""
        for guide in self._guides:
            guide.synchronize()

    def unwrap_model(self) -> nn.Module:
        """Return the plain model, without the objective and without what guides added for training."""
        return unwrap(self.model)

    @property
    def _guides(self) -> list[Guide]:
        return list(self.guides)  # type: ignore[arg-type]

    def _warn_without_annotation(self, batch: Batch) -> None:
        """Warn once for each guide if a batch comes without the annotation that it needs."""
        for guide in self._guides:
            if guide.needs is not None and getattr(batch, guide.needs) is None and guide not in self._warned:
                self._warned.add(guide)
                warnings.warn(
                    f"{type(guide).__name__} needs {guide.needs} and the batch has none; it does nothing for such a batch. "
                    f"Give Batch({guide.needs}=...)",
                    stacklevel=4,
                )

    def _task(self, logits: Tensor, batch: Batch) -> Tensor:
        """Return what each image costs (B,)."""
        if self.criterion is None:
            return task_loss(logits, batch.labels, self.label_smoothing if self.training else 0.0, batch.targets)
        if batch.targets is not None:
            raise SightlineError("images are mixed, and a task of your own takes labels; leave out task or the mixing")
        losses = self.criterion(logits, batch.labels)
        if not isinstance(losses, Tensor) or losses.shape != (len(logits),):
            came = f"a tensor of shape {tuple(losses.shape)}" if isinstance(losses, Tensor) else repr(losses)
            raise SightlineError(
                f"task returned {came}; expected one loss for each image, ({len(logits)},): use reduction='none'"
            )
        return losses

    def _task_total(self, batch: Batch) -> Tensor:
        """Return this batch's share of the divisor of the task loss."""
        for guide in self._guides:
            if type(guide).sample_weights is not Guide.sample_weights:
                total = guide.weight_total(batch)
                if total is None:
                    raise SightlineError(
                        f"{type(guide).__name__} reweights samples by what the forward pass gives, which gradient accumulation "
                        "does not support; use larger batches"
                    )
                return total.cpu()
        return torch.tensor(float(len(batch)))

    def _inputs(self, images: Tensor) -> Tensor:
        """Return images as the model takes them; on a GPU, `_reduce` checks their range in the one wait of a step."""
        return images if self.input_spec is None else self.input_spec.normalize(images, images.device.type == "cpu")

    def _look(self, batch: Batch, inputs: Tensor) -> Context:
        """One forward pass of all views of the inputs, through the tap where a guide needs it."""
        size = (inputs.shape[-2], inputs.shape[-1])
        check_views(self.views, size)
        differentiable = torch.is_grad_enabled()
        tap = self.tap if any(guide.needs_tap for guide in self._guides) else None
        if tap:
            tap.resolve_default(inputs)  # before views are recomputed, which must repeat the same passes

        def run(images: Tensor) -> tuple[Tensor, ...]:
            if tap is None:
                return (returned_logits(self.model(images)),)
            tapped = tap(images, train=differentiable)
            return returned_logits(tapped.output), *tapped.raw

        def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
            return nullcontext(), StillStatistics(self.model)

        step = self.view_chunk or len(self.views)
        outputs, seen = [], []
        with ExitStack() as stack, naming_inputs(self.model):
            for guide in self._guides:
                stack.enter_context(guide.capture())
            for start in range(0, len(self.views), step):
                shown = [view(inputs) for view in self.views[start : start + step]]
                images = shown[0] if len(shown) == 1 else torch.cat(shown)
                seen.append(images)
                if differentiable and step < len(self.views):
                    outputs.append(checkpoint(run, images, use_reentrant=False, context_fn=contexts))
                else:
                    outputs.append(run(images))
        tapped = [Tapped(logits, tap.layers, list(raw), size) for logits, *raw in outputs] if tap else []
        if self.tap and size not in self._known_sizes:
            refuse_few_places(self.tap, inputs, tapped[0] if tapped else None)
            self._known_sizes.add(size)
        returned = outputs[0][0][: len(batch)]
        if batch.multi_label and returned.shape[1] == 1:
            raise SightlineError(
                "the model has one logit, which tells two classes apart; images with several labels need a logit a class"
            )
        logits = logits_of(returned)
        return Context(
            batch,
            logits,
            self.views,
            tapped,
            unwrap(self.model),
            seen,
            differentiable,
            self._classify,
            epoch=self.epoch,
        )

    def _classify(self, images: Tensor) -> Tensor:
        """Return the logits of images that are not part of the batch."""
        inputs = self._inputs(images)
        with StillStatistics(self.model):
            return logits_of(self.model(inputs))

    def _reduce(self, totals: Tensor, finite: Tensor, batch: Batch, replayed: bool) -> tuple[Tensor, int]:
        """Sum the counts over all processes, and stop them all if one has a loss that is not finite or wrong pixels."""
        distributed = self.training and dist.is_available() and dist.is_initialized()
        world_size = dist.get_world_size() if distributed else 1
        deferred = self.input_spec is not None and not replayed and batch.images.device.type != "cpu"
        outside = outside_unit_range(batch.images) if deferred else torch.zeros_like(finite[0])
        problems = torch.stack([outside, ~finite.all()])
        shared = torch.cat([totals, problems.to(totals)])
        if world_size > 1:
            dist.all_reduce(shared)
        if shared[-2:].any():  # the one wait of a step
            if deferred and self.input_spec is not None and shared[-2] > 0:
                self.input_spec.check_range(batch.images)
                raise SightlineError("images of another process are outside [0, 1]; its message has their range")
            places = (~finite).nonzero().flatten()
            indices = (
                places.tolist() if batch.indices is None else batch.indices[places.to(batch.indices.device)].tolist()
            )
            everyone = [indices]
            if world_size > 1:
                everyone = [[] for _ in range(world_size)]
                dist.all_gather_object(everyone, indices)
            indices = [index for each in everyone for index in each]
            raise NonFiniteLossError(
                f"the loss of {len(indices)} images is NaN or infinite (indices {indices[:20]}); a smaller learning rate, "
                "gradient clipping or full precision usually helps",
                indices,
            )
        return shared[:-2], world_size
