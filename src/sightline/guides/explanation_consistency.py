"""Explanation consistency: more weight for images whose map changes when what it left out is disturbed.

"Improving Network Interpretability via Explanation Consistency Evaluation", section III.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from sightline._core.checks import check_choice, check_fraction
from sightline._core.tensors import check_pixels
from sightline.attacks.consistency import (
    Distance,
    Perturbation,
    Psi,
    check_options,
    disturbed_images,
    explanation_consistency,
)
from sightline.data.batch import Batch
from sightline.errors import SightlineError
from sightline.explainers import Explainer, create_explainer, normalize_maps, resize_maps
from sightline.explainers.cam import CAM
from sightline.explainers.registry import needs_layer
from sightline.guides.measured_weights import MeasuredWeights
from sightline.guides.registry import GUIDES
from sightline.guides.sample_weights import Normalize
from sightline.network.input_spec import to_inputs
from sightline.network.logits import logits_of
from sightline.network.replay import Replay
from sightline.network.tap import Tapped
from sightline.objectives.base import Context, GuidedModel
from sightline.objectives.losses import task_loss

Mode = Literal["pass", "fused"]
Labels = Literal["each", "top"]
Units = Literal["pixels", "normalized"]
Range = Literal["minmax", "clip"]


@GUIDES.register("explanation_consistency", needs_layer=True, pixel_space=True, reweights=True)
class ExplanationConsistency(MeasuredWeights):
    """Explanation consistency: an image gets the weight v = 1 - E, which is high if its map changes under an attack.

    x_hat = x + eps sign(grad_x L) (1 - map(x)), sign(0) = 1, clamped to [0, 1] (Eqs. 1 and 7; the paper prints no clamp:
    `clamp=False`).
    E = 1 - psi(distance of map(x) and map(x_hat)) where x and x_hat are predicted equally, else 0 (Eqs. 2 and 3). Both maps
    explain the class predicted for x. The task loss is sum v L / sum v (Eq. 5, divided); weights start at 1. Only
    images that the model predicts correctly are reweighted; at every measurement the others get 1.

    Where images can have several labels, L is their binary cross-entropy, and every label of an image has a map, an x_hat that
    spares this map, and an E, which is 0 where the label's logit falls to 0 or below. The image's weight is the mean of 1 - E
    over its labels; a label that the model does not find in x counts as 1, and an image without labels weighs 1. The paper
    (section III-D) leaves several labels open except for a simple manner, `labels="top"`: the highest logit's class alone is
    explained, as if it were the only one, and the prediction is right where it is one of the labels.

    As printed, the distance is a sum of squares over all pixels, which takes tanh to 1 for nearly every image, so the
    weights say nothing. The default is ten times the mean of squares; `distance="sum"` is the paper's. The logged spread
    of the weights shows saturation.

    Args:
        explainer: whose maps: an explainer or its name; any in `"pass"` mode, a class activation map in `"fused"`.
        perturbation: of what the map left out: `"fgsm"`, or a fade to `"zero"` or to the image's `"mean"` color.
        eps: FGSM's change of a pixel, in [0, 1].
        units: what `eps` counts: `"pixels"` in [0, 1], or what the model takes, `"normalized"`: eps times the standard
            deviation of each channel.
        clamp: keep attacked images in [0, 1]; False = Eq. 1 as printed.
        range: how a class activation map comes to [0, 1]: `"minmax"`, or `"clip"`, as in the paper.
        psi: takes the distance to [0, 1): `"tanh"`, `"softsign"` or `"arctan1"` (2 atan / pi).
        distance: `"mean"` = 10 times the mean squared difference; `"sum"` = the sum of squares.
        interval: k: measured every k epochs; None = 4 in `"pass"` mode, 1 in `"fused"`.
        min_weight: the smallest weight: an image with a weight near 0 has no effect until the next measurement; 0 = the paper.
        mode: `"pass"`: a pass over the data in eval mode, without augmentation (Algorithm 1). `"fused"`: measured in the
            training steps, whose forward pass gives the map of x and whose backward pass gives the attack's gradient, and
            used at an image's next visit: the images are the augmented ones and the model is in training mode. The attack
            then raises the objective's whole loss, guides that are added to this one included.
        labels: of images that can have several: `"each"` of them is explained, or the `"top"` class alone (the paper).

    References:
        Wu et al., "Improving Network Interpretability via Explanation Consistency Evaluation" (IEEE Transactions on Multimedia
            2024), section III.

    Examples:
        >>> model, _ = sl.load_model("sightline/small_cnn", classes=2)
        >>> images, labels = torch.rand(4, 3, 64, 64), torch.tensor([0, 1, 0, 1])
        >>> loader = [sl.Batch(images, labels, indices=torch.arange(4))]
        >>> objective = sl.Objective(model, sl.ExplanationConsistency(interval=1))
        >>> objective.on_epoch_start(loader, epoch=1)  # a pass over the data that measures the weights
        >>> objective(loader[0])["loss"].backward()
    """

    second_order = False
    needs_pixels = True
    multi_label = True

    def __init__(
        self,
        explainer: str | Explainer = "gradcam",
        perturbation: Perturbation = "fgsm",
        eps: float = 0.1,
        psi: Psi = "tanh",
        distance: Distance = "mean",
        interval: int | None = None,
        min_weight: float = 0.05,
        mode: Mode = "pass",
        normalize: Normalize = "weights",
        labels: Labels = "each",
        units: Units = "pixels",
        clamp: bool = True,
        range: Range = "minmax",
    ) -> None:
        super().__init__((4 if mode == "pass" else 1) if interval is None else interval, min_weight, normalize)
        check_options(psi, distance, perturbation)
        check_choice(Mode, mode=mode)
        check_choice(Labels, labels=labels)
        check_choice(Units, units=units)
        check_choice(Range, range=range)
        check_fraction("(0, 1]", eps=eps)
        if mode == "fused" and min_weight == 0:
            raise SightlineError(
                "min_weight is 0 and mode 'fused': an image without weight has no gradient to attack it by; use mode='pass'"
            )
        self.explainer = create_explainer(explainer) if isinstance(explainer, str) else explainer
        self.needs_layer = not isinstance(explainer, str) or needs_layer(explainer)
        self.needs_tap = mode == "fused"
        if mode == "fused" and not isinstance(self.explainer, CAM):
            raise SightlineError(
                f"explainer {explainer!r} runs the model itself; mode 'fused' needs a class activation map (or use 'pass')"
            )
        for option, asked in {"range='clip'": range == "clip", "clamp=False": not clamp}.items():
            if asked and not isinstance(self.explainer, CAM):
                raise SightlineError(
                    f"explainer is {explainer!r}; {option} needs a class activation map, such as 'gradcam'"
                )
        self.perturbation: Perturbation = perturbation
        self.psi: Psi = psi
        self.distance: Distance = distance
        self.eps, self.mode, self.labels = eps, mode, labels
        self.units, self.clamp, self.range = units, clamp, range
        self._step: tuple[GuidedModel, Replay] | None = None  # what this step's hook needs to run the model again
        self._now = False  # whether this epoch's training steps measure

    # ---- a pass over the data ----

    def measure(self, objective: GuidedModel, batch: Batch) -> Tensor:
        """v (B,) of Eq. 4: 1 for images that are predicted wrongly, and for the others at least the floor."""
        check_pixels(batch.images)
        gradient = None
        with torch.enable_grad():
            images = batch.images.detach().requires_grad_(self.perturbation == "fgsm")
            logits, explain = self._look(objective, images, self._keyed(objective, batch, "unchanged"))
            asked = self._asked(logits.detach(), batch)
            maps = [explain(question.classes) for question in asked]
            if images.requires_grad:
                (gradient,) = torch.autograd.grad(task_loss(logits, batch.labels).sum(), images)
        finite = logits.detach().isfinite().all(1)
        weights = []
        for question, shown in zip(asked, maps):
            rows = (finite & question.right).nonzero()[:, 0]
            values = torch.ones_like(finite, dtype=self.weights.dtype)
            if len(rows):
                chosen = None if gradient is None else gradient[rows]
                explainer = self._keyed(objective, batch, "disturbed", rows)
                values[rows] = self._apart(
                    objective,
                    images.detach()[rows],
                    shown[rows],
                    question.classes[rows],
                    chosen,
                    question.alone,
                    explainer,
                ).to(values)
            weights.append(values)
        return torch.where(finite, self._mean(asked, weights), torch.nan)

    def due(self, epoch: int) -> bool:
        """Whether a pass comes before this epoch; never in fused mode."""
        return self.mode == "pass" and super().due(epoch)

    # ---- within the training steps ----

    def on_epoch_start(self, objective: GuidedModel, loader: Iterable[Batch], epoch: int) -> None:
        """In pass mode, measure every k epochs; in fused mode, have the steps of every k-th epoch measure."""
        super().on_epoch_start(objective, loader, epoch)
        self._now = self.mode == "fused" and (epoch + 1) % self.interval == 0

    def transform(self, batch: Batch, objective: GuidedModel) -> Batch:
        """Return the batch unchanged; in fused mode, the backward pass will reach its images."""
        if not self._now or not torch.is_grad_enabled():
            return batch
        check_pixels(batch.images)
        self._step = objective, Replay(batch.images.device)
        if self.perturbation != "fgsm":
            return batch
        return batch.changed(images=batch.images.detach().requires_grad_())

    def losses(self, context: Context) -> dict[str, Tensor]:
        """No terms; in fused mode, has the backward pass measure this batch."""
        step, self._step = self._step, None
        if step is None:
            return super().losses(context)
        objective, replay = step
        batch = context.batch
        if batch.multi_label and any(isinstance(m, nn.SyncBatchNorm) for m in objective.model.modules()):
            raise SightlineError(
                "mode 'fused' runs the model as often as an image of the batch has labels, and SyncBatchNorm would wait for "
                "processes whose images have fewer; use mode 'pass'"
            )
        asked = self._asked(context.logits.detach(), batch)
        unchanged, disturbed = (self._keyed(objective, batch, purpose) for purpose in ("unchanged", "disturbed"))
        maps = [self._maps(unchanged, context.tapped[0], question.classes)[: len(batch)] for question in asked]
        device = batch.images.device
        precision = torch.get_autocast_dtype(device.type), torch.is_autocast_enabled(device.type)
        attacked = batch.images if self.perturbation == "fgsm" else context.logits

        def measure(gradient: Tensor) -> None:
            images, weights = batch.images.detach(), []
            for question, shown in zip(asked, maps):
                with replay.again(objective.model), torch.no_grad(), torch.autocast(device.type, *precision):
                    values = self._apart(
                        objective, images, shown, question.classes, gradient, question.alone, disturbed
                    )
                weights.append(torch.where(question.right, values.to(self.weights), 1.0))
            # A loss that is scaled for 16 bits may overflow: then the old weights stay.
            known = gradient.isfinite().flatten(1).all(1)
            self._remember(batch, torch.where(known, self._mean(asked, weights), self.weights[self._rows(batch)]))

        # In the backward pass, so the loss of every image is known to be finite, and the gradient is there.
        attacked.register_hook(measure)
        return super().losses(context)

    # ---- what both share ----

    def _asked(self, logits: Tensor, batch: Batch) -> "list[_Question]":
        """Return what is explained of a batch: the predicted class of each image, or each of its labels in turn."""
        if not batch.multi_label:
            predicted = logits.argmax(1)
            return [_Question(predicted, torch.ones_like(predicted, dtype=torch.bool), predicted == batch.labels, True)]
        if self.labels == "top":
            predicted = logits.argmax(1)
            present = batch.labels.gather(1, predicted[:, None])[:, 0] == 1
            return [_Question(predicted, torch.ones_like(present), present, True)]
        return [_Question(classes, left, left & _found(logits, classes), False) for classes, left in batch.each_label()]

    def _mean(self, asked: "list[_Question]", weights: list[Tensor]) -> Tensor:
        """Return the weight (B,) of each image: the mean over its questions, at least the minimum; 1 where there were none."""
        asks = torch.stack([question.counts for question in asked])
        total = (torch.stack(weights) * asks).sum(0)
        return torch.where(asks.any(0), total / asks.sum(0).clamp_min(1), 1.0).clamp_min(self.min_weight)

    def _apart(
        self,
        objective: GuidedModel,
        images: Tensor,
        maps: Tensor,
        classes: Tensor,
        gradient: Tensor | None,
        alone: bool,
        explainer: Explainer,
    ) -> Tensor:
        """1 - E (B,) of images with the maps (B, H, W) of some classes (B,), each the only one or one of several; gradients."""
        changed = disturbed_images(
            objective.unwrap_model(),
            images,
            maps,
            classes,
            perturbation=self.perturbation,
            eps=self._eps(images),
            gradient=gradient,
            clamp=self.clamp,
        )
        logits, explain = self._look(objective, changed.to(images.dtype), explainer)  # attacks return float32 at least
        unchanged = logits.argmax(1) == classes if alone else _found(logits, classes)
        return 1 - explanation_consistency(maps, explain(classes), unchanged, self.psi, self.distance)

    def _keyed(
        self, objective: GuidedModel, batch: Batch, purpose: str, rows: Tensor | slice = slice(None)
    ) -> Explainer:
        """Return the explainer with random draws that depend on the epoch and on the images of a batch or of some rows."""
        indices = None if batch.indices is None else batch.indices[rows]
        return self.explainer.for_images(batch.images[rows], indices, objective.epoch, purpose)

    def _look(
        self, objective: GuidedModel, images: Tensor, explainer: Explainer
    ) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """Logits (B, K), and what makes maps (B, H, W) of classes (B,); by one forward pass for a CAM."""
        spec = objective.input_spec
        inputs = to_inputs(images, spec) if self.clamp or spec is None else spec.normalize(images, checked=False)
        if isinstance(explainer, CAM):
            assert objective.tap is not None
            tapped = objective.tap(inputs, train=images.requires_grad)
            return tapped.logits, lambda classes: self._maps(explainer, tapped, classes)
        model, spec = objective.unwrap_model(), objective.input_spec
        layers = objective.tap.layers if objective.tap else None
        return logits_of(model(inputs)), lambda classes: explainer(model, images.detach(), classes, layers, spec)

    def _eps(self, images: Tensor) -> float | Tensor:
        """Return the change of a pixel, or of each channel's pixels (C, 1, 1)."""
        if self.units == "pixels" or self.input_spec is None:
            return self.eps
        return self.eps * torch.tensor(self.input_spec.std).to(images)[:, None, None]

    def _maps(self, explainer: Explainer, tapped: Tapped, classes: Tensor) -> Tensor:
        """Return the CAMs (N, H, W) in [0, 1] of a forward pass over one or several views of the images."""
        assert isinstance(explainer, CAM)
        repeats = len(tapped.logits) // len(classes)
        (maps,) = explainer.raw_maps(tapped, classes.repeat(repeats))
        resized = resize_maps(maps, tapped.image_size)
        return resized.clamp(0, 1) if self.range == "clip" else normalize_maps(resized)


@dataclass
class _Question:
    """What one class of each image is asked.

    Attributes:
        classes: (B,) the classes to explain.
        counts: (B,) bool, which images have such a class.
        right: (B,) bool, which of them the model predicts; the others weigh 1.
        alone: whether it is the image's only class, predicted where its logit is the highest; otherwise, where it is
            above 0.
    """

    classes: Tensor
    counts: Tensor
    right: Tensor
    alone: bool


def _found(logits: Tensor, classes: Tensor) -> Tensor:
    """Return whether the logit of a class (B,) predicts it, for images that can show several."""
    return logits.gather(1, classes[:, None])[:, 0] > 0
