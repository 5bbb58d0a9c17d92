"""IMPACTX: a second branch learns to predict the teacher's maps, and the classification reads its code."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sightline._core.checks import check_non_negative
from sightline._core.distributed import sum_over_processes
from sightline._core.seeding import generator
from sightline._core.tensors import at_least_float32
from sightline.data.batch import Batch
from sightline.errors import SightlineError
from sightline.explainers import create_explainer
from sightline.explainers.registry import layer_for
from sightline.guides.balance import named_explainer
from sightline.guides.recording import OutputRecorder
from sightline.guides.registry import GUIDES
from sightline.models.two_branch import TwoBranch, attach_two_branch
from sightline.network.execution import stated_shapes
from sightline.network.logits import logits_of
from sightline.objectives.base import Context, Guide, GuidedModel
from sightline.objectives.losses import task_loss


@GUIDES.register("impactx")
class IMPACTX(Guide):
    """IMPACTX: cross-entropy of the two branches together, plus `weight` times the map's mean squared error (Eq. 1).

    The model becomes a two-branch one (see `sightline.models.two_branch`): a latent explanation predictor, which starts as a
    copy of the model, gives a code; a decoder makes the map of it; and a linear classifier reads the model's logits and the
    code. All of it ships with the model under `two_branch.*`, and `load_model` puts it back. The explainer `impactx` shows
    its maps. The target of a map is the teacher's map of the true class divided by its root mean square: signed maps keep
    their sign, and the error is the share of the target that is not predicted, 1 for a map of zeros.

    `<term>/gradient_ratio` is logged: how much larger the cross-entropy's gradient at the code is than that of the map's
    error with a weight of 1. A `weight` far below it leaves the encoder to the cross-entropy.

    Two stages, the paper's choice: a run trains the plain model; `sl.maps.compute_maps` stores the maps of its training
    images for their labels; then a run from those weights with this guide and `maps:` in its recipe, in which the model
    does not change, its batch norm included, and the branch alone is trained. A single stage (`freeze=False` with a
    `teacher`) trains everything, and explains every image again each time it is seen, as it is after augmentation, by the
    whole model of that moment; the paper leaves open which of the two is better.

    Two controls have the same parameters: `weight=0`, which needs no maps, and `shuffle_maps`.

    Args:
        weight: lambda, of the map's error; the cross-entropy has weight 1 (the paper searches 0.2 .. 1.4).
        size: side of the model's input in pixels, which decides the decoder; None = as the objective's input spec says, such as
            a recipe's `image_size`, else as the model declares.
        features: C reads the deep features instead of the model's logits.
        freeze: do not change the model, and train the branch alone.
        teacher: an explainer's name, or a mapping of `name` and its options, that explains each training batch; None = the
            batch's stored maps.
        shuffle_maps: give every image the map of another image of its batch, by chance; a lone image keeps its own.
        seed: of the shuffling.

    References:
        Apicella et al., "IMPACTX: improving model performance by appropriately constraining the training with teacher
            explanations" (Artificial Intelligence Review 2026), sections 3 and 4.3.
    """

    branch: TwoBranch
    needs_pixels = True  # its branch is a separate network on the image
    term = "impactx"
    detached = False

    def __init__(
        self,
        weight: float = 1.0,
        size: int | None = None,
        features: bool = False,
        freeze: bool = True,
        teacher: str | Mapping[str, Any] | None = None,
        shuffle_maps: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        check_non_negative(weight=weight)
        if size is not None and size < 8:
            raise SightlineError(f"size is {size}; expected at least 8 pixels a side")
        if teacher is not None and freeze:
            raise SightlineError("teacher explains a model that is still learning; with freeze=True give stored maps")
        self.teacher = None if teacher is None else _teacher(teacher)
        self.weight, self.size, self.features, self.freeze = float(weight), size, features, freeze
        self.shuffle_maps, self.seed = shuffle_maps, seed
        self.needs = "maps" if teacher is None else None
        self._recorder = OutputRecorder()

    def loss_weights(self, alone: bool) -> tuple[float, float]:
        """(1, weight)."""
        return 1.0, self.weight

    def attach(self, model: nn.Module) -> None:
        """Give the model its branch, or take the one that exists, and freeze the rest of the model.

        Raises:
            SightlineError: the size is not known, or the model cannot have the branch.
        """
        self.branch = attach_two_branch(model, self.size or self._known_size(model), self.features)
        self.branch.frozen, self.branch.detached = self.freeze, self.detached
        added = set(self.branch.parameters())
        for parameter in model.parameters() if self.freeze else ():
            parameter.requires_grad_(parameter in added)

    def _known_size(self, model: nn.Module) -> int:
        """Return the side of the model's input, where something defines it."""
        if self.input_spec is not None:
            height, width = self.input_spec.size
            if height != width:
                raise SightlineError(f"the input is {height} x {width}; {self.term} needs square images")
            return height
        declared = next(stated_shapes(model), None)
        if declared is None:
            raise SightlineError(f"{type(model).__name__} does not declare its input's size; give size=, in pixels")
        return declared[-1]

    def transform(self, batch: Batch, objective: GuidedModel) -> Batch:
        """Return the batch with the maps that the model is to learn.

        Raises:
            SightlineError: there are none.
        """
        if self.teacher is not None:
            name, options = self.teacher
            layer = layer_for(name, objective.layer)
            explainer = create_explainer(name, **options)
            maps = explainer(objective.model, batch.images, batch.labels, layer, objective.input_spec)
            batch = batch.changed(maps=maps.to(batch.images.dtype))
        if batch.maps is None:
            if self.weight > 0:
                raise SightlineError(
                    f"{self.term} learns maps, and the batch has none; give the recipe's `maps:`, Batch(maps=), or a teacher"
                )
            return batch
        if self.shuffle_maps and len(batch) > 1:
            key = [] if batch.indices is None else batch.indices.tolist()
            draw = generator(self.seed, objective.epoch, "shuffled maps", *key)
            order = torch.randperm(len(batch), generator=draw).to(batch.maps.device)
            shuffled = torch.empty_like(batch.maps)
            shuffled[order] = batch.maps[order.roll(1)]  # one cycle through all images, so none keeps its own
            batch = batch.changed(maps=shuffled)
        return batch

    def capture(self) -> AbstractContextManager[None]:
        """Record the codes of the branch."""
        return self._recorder.record(self.branch.lep)

    def sample_mask(self, batch: Batch) -> dict[str, Tensor]:
        """All images, where there are maps or a teacher that makes them."""
        known = batch.maps is not None or (self.teacher is not None and self.training)
        return {self.term: torch.full((len(batch),), known, device=batch.images.device)}

    def losses(self, context: Context) -> dict[str, Tensor]:
        """Return the mean squared error (B,) of the predicted map and the teacher's map."""
        batch = context.batch
        code = self._recorder.take()[: len(batch)]
        predicted = at_least_float32(self.branch.decoder(code))
        if batch.maps is None:  # counts for no image, and keeps the graph of every step
            return {self.term: predicted.square().mean((1, 2))}
        if predicted.shape != batch.maps.shape:
            raise SightlineError(
                f"the images are {tuple(batch.maps.shape[1:])} and the branch predicts maps {tuple(predicted.shape[1:])}; "
                "give the guide size=, the side of the images"
            )
        errors = map_error(predicted, batch.maps.to(predicted))
        if context.differentiable and not self.detached:
            context.figures[f"{self.term}/gradient_ratio"] = self._gradient_ratio(context, code, errors)
        return {self.term: errors}

    def _gradient_ratio(self, context: Context, code: Tensor, errors: Tensor) -> Tensor:
        """Return the norm of the cross-entropy's gradient with respect to all codes, divided by that of the map errors."""
        (by_error,) = torch.autograd.grad(errors.sum(), code, retain_graph=True)
        moved = code.detach().requires_grad_()
        change = F.linear(moved - code.detach(), self.branch.classifier.weight[:, -moved.shape[1] :].detach())
        logits = context.logits.detach() + logits_of(change)
        task = task_loss(logits, context.batch.labels, targets=context.batch.targets)
        (by_task,) = torch.autograd.grad(task.sum(), moved)
        norms = torch.stack([by_task.double().square().sum(), by_error.double().square().sum()])
        if self.training:
            sum_over_processes(norms)
        return (norms[0] / norms[1]).sqrt().to(errors.dtype)


def map_error(predicted: Tensor, maps: Tensor) -> Tensor:
    """Return the mean squared error of predicted maps and a teacher's, each divided by its root mean square.

    Args:
        predicted: (B, H, W).
        maps: (B, H, W), signed or not; an all-zero map does not change.

    Returns:
        (B,).
    """
    largest = maps.abs().amax((1, 2), keepdim=True)
    scaled = maps / torch.where(largest > 0, largest, 1.0)  # squares of tiny values would be 0
    size = scaled.square().mean((1, 2), keepdim=True).sqrt()
    return F.mse_loss(predicted, scaled / torch.where(size > 0, size, 1.0), reduction="none").mean((1, 2))


def _teacher(config: str | Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Check an explainer's name and options now, and not at the first batch; return both."""
    name, options = named_explainer(config, "teacher")
    create_explainer(name, **options)
    return name, options
