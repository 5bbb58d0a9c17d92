"""What a guide is: the optional parts by which a method takes part in training."""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from sightline._core.checks import check_number
from sightline.data.batch import Batch
from sightline.errors import SightlineError
from sightline.explainers.cam import CAM
from sightline.explainers.forward_cam import ForwardCAM
from sightline.network.input_spec import InputSpec
from sightline.network.tap import Tap, Tapped
from sightline.network.targets import ClassScore, Resolved
from sightline.network.views import IDENTITY, View

Need = Literal["masks", "boxes", "avoid", "maps", "groups"]
"""What images can have; each is an attribute of `Batch`."""


class GuidedModel(Protocol):
    """What a guide may ask of the `Objective` that it belongs to.

    Attributes:
        model: The user's classifier.
        input_spec: Normalization of images in [0, 1]; None where images are what the model takes.
        tap: The model opened at the target layer; None where no guide needs one.
        training: Whether the objective is in training mode.
        epoch: The epoch that randomness in guides depends on.
    """

    model: nn.Module
    input_spec: InputSpec | None
    tap: Tap | None
    training: bool
    epoch: int

    @property
    def layer(self) -> str | None:
        """The name of the target layer on the unwrapped model."""

    def unwrap_model(self) -> nn.Module:
        """Return the user's classifier without wrappers."""


@dataclass
class Context:
    """What the guides of one training step share: one forward pass of all views through the tapped model.

    Attributes:
        batch: the batch after every guide's `transform`.
        logits: (B, K), those of the identity view.
        views: the views in the order in which the model saw them, the identity first.
        passes: for each chunk of views, its forward pass; empty where no guide needs the tap.
        model: the classifier without wrappers.
        inputs: for each chunk of views, what the model saw.
        differentiable: whether gradients with respect to the parameters are wanted.
        classify: the logits (N, K) of further images, such as the batch's with something erased, by the same model; batch norm
            does not count them.
        counts: what a guide wants logged as a number of images: `context.counts["zero_maps"] = ...`.
        left_out: for a term's name, the images (B,) bool that turn out to have no value; the term averages over the others.
        figures: scalars that a guide wants logged, equal on all processes: `context.figures["weights/median"] = ...`.
        identity_maps: the maps (B, h, w) of the identity view that a guide last asked for, detached.
        epoch: the epoch, which keys random draws.
    """

    batch: Batch
    logits: Tensor
    views: tuple[View, ...]
    passes: list[Tapped]
    model: nn.Module
    inputs: list[Tensor]
    differentiable: bool
    classify: Callable[[Tensor], Tensor]
    counts: dict[str, Tensor] = field(default_factory=dict)
    left_out: dict[str, Tensor] = field(default_factory=dict)
    figures: dict[str, Tensor] = field(default_factory=dict)
    identity_maps: Tensor | None = None
    epoch: int = 0

    @property
    def tapped(self) -> list[Tapped]:
        """For each chunk of views, its forward pass through the tapped model.

        Raises:
            SightlineError: no guide of the objective declares that it needs the tap.
        """
        if not self.passes:
            raise SightlineError(
                "a guide reads the target layer, and none has needs_tap = True; set it in the guide's class"
            )
        return self.passes

    def raw_maps(self, explainer: CAM | ForwardCAM, targets: Tensor, views: tuple[View, ...] = (IDENTITY,)) -> Tensor:
        """Return the maps (V, B, h, w) of some views by the explainer's formula, each turned back.

        Args:
            explainer: a differentiable class activation map, or one whose channel weights are constants.
            targets: (B,) the class to explain, the same in every view.
            views: which views, among those that the guide declared.
        """
        maps = []
        explainer = explainer.for_images(self.batch.images, self.batch.indices, self.epoch)
        for inputs, tapped in zip(self.inputs, self.tapped):
            # Labels and predictions are classes of the model already: no check has to wait for them.
            repeated = targets.repeat(len(tapped.logits) // len(targets))
            classes = Resolved(ClassScore(repeated))
            if isinstance(explainer, ForwardCAM):
                maps.append(explainer.raw_maps(self.model, inputs, tapped, repeated))
            else:
                maps.append(explainer.raw_maps(tapped, classes, self.differentiable)[0])
        per_view = torch.cat(maps).unflatten(0, (len(self.views), len(targets)))
        self.identity_maps = per_view[0].detach()
        return torch.stack([view.inverse(per_view[self.views.index(view)]) for view in views])


class Guide(nn.Module):
    """A method that guides training. Every part has a default that does nothing; a guide overrides those it needs.

    Guides add and scale: `SegmentOverlap() + 0.3 * other`. A scale applies to a guide's terms only; the task loss belongs
    to the objective. A guide that overrides `sample_weights` is a reweighter; a sum can hold one.

    Attributes:
        views: the views of every image that the guide looks at; the identity comes first.
        needs_tap: whether `losses` reads the tapped layer.
        needs_layer: whether the guide explains the model outside of `losses`, by `Objective.tap`.
        second_order: whether a loss of the guide differentiates a gradient of the tapped layer, as one on maps does; where not,
            the model need not pass `check_model`.
        needs_pixels: whether a training step looks at the pixels after `transform`, or `transform` at the model. Such a guide
            cannot be trained from kept features.
        needs: what an image must have for the guide to act on it; None = nothing.
        multi_label: whether the guide can train on images with several labels.
        input_spec: that of the objective, from `attach` on.

    Examples:
        >>> class Entropy(sl.Guide):
        ...     def sample_mask(self, batch):
        ...         return {"entropy": torch.ones(len(batch), dtype=torch.bool)}
        ...
        ...     def losses(self, context):
        ...         probabilities = context.logits.softmax(1)
        ...         return {"entropy": -(probabilities * probabilities.log()).sum(1)}
        >>> model, _ = sl.load_model("sightline/small_cnn", classes=2)
        >>> losses = sl.Objective(model, 0.1 * Entropy())(sl.Batch(torch.rand(2, 3, 64, 64), torch.tensor([0, 1])))
        >>> 0 < losses["entropy"].item() < 0.7  # at most the logarithm of 2
        True
    """

    input_spec: InputSpec | None = None
    views: tuple[View, ...] = (IDENTITY,)
    needs_tap: bool = False
    needs_layer: bool = False
    needs_pixels: bool = False
    second_order: bool = True
    needs: Need | None = None
    multi_label: bool = False

    def loss_weights(self, alone: bool) -> tuple[float, float]:
        """Return the weights of the task loss and of this guide's terms, alone or in a sum."""
        return 1.0, 1.0

    def attach(self, model: nn.Module) -> None:
        """Prepare the model before its parameters go to an optimizer, such as by adding a branch."""

    def transform(self, batch: Batch, objective: GuidedModel) -> Batch:
        """Change a training batch before the forward pass, such as its backgrounds."""
        return batch

    def capture(self) -> AbstractContextManager[None]:
        """Entered around the forward pass of all views, for a guide that records the output of a module it attached."""
        return nullcontext()

    def sample_weights(self, logits: Tensor, batch: Batch) -> Tensor | None:
        """Weights (B,) of the task loss, or None for equal ones."""
        return None

    def weight_total(self, batch: Batch) -> Tensor | None:
        """Return the divisor of the weighted task loss (scalar), if known before the forward pass; None = the weights' sum."""
        return None

    def sample_mask(self, batch: Batch) -> dict[str, Tensor]:
        """For every term's name, which images (B,) bool it averages over; read from the batch alone."""
        return {}

    def losses(self, context: Context) -> dict[str, Tensor]:
        """Every term's value for each image (B,), finite also for those that it does not average over."""
        return {}

    def on_stage_start(self, objective: GuidedModel, loader: Iterable[Batch]) -> None:
        """Prepare what needs a pass over the data before a stage, with the model that the stage before has trained."""

    def on_epoch_start(self, objective: GuidedModel, loader: Iterable[Batch], epoch: int) -> None:
        """Prepare what needs a pass over the data between epochs."""

    def synchronize(self) -> None:
        """Make all processes agree on what each of them learnt about its own images."""

    def __add__(self, other: "Guide | GuideSum") -> "GuideSum":
        return GuideSum([(1.0, self)]) + other

    def __mul__(self, scale: float) -> "GuideSum":
        check_number(scale=scale)
        return GuideSum([(float(scale), self)])

    __rmul__ = __mul__


def all_images(batch: Batch) -> Tensor:
    """Return the mask (B,) of a loss that averages over every image."""
    return torch.ones(len(batch), dtype=torch.bool, device=batch.images.device)


@dataclass(frozen=True)
class GuideSum:
    """Guides that train one model together; they share one forward pass.

    Attributes:
        summands: pairs of a scale, which applies to the guide's terms, and the guide.
    """

    summands: list[tuple[float, Guide]]

    def __add__(self, other: "Guide | GuideSum") -> "GuideSum":
        return GuideSum(self.summands + (other if isinstance(other, GuideSum) else GuideSum([(1.0, other)])).summands)

    def __mul__(self, scale: float) -> "GuideSum":
        check_number(scale=scale)
        return GuideSum([(scale * each, guide) for each, guide in self.summands])

    __rmul__ = __mul__
