"""Weights of the training images: what every guide that reweights shares, and the rivals of explanation consistency."""

from collections.abc import Callable, Iterable
from math import ceil
from typing import Any, Literal, get_args

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from sightline._core.progress import bar
from sightline._core.tensors import at_least_float32
from sightline.data.batch import Batch
from sightline.errors import SightlineError
from sightline.guides.base import Context, Guide, GuidedModel
from sightline.guides.losses import task_loss
from sightline.guides.registry import GUIDES
from sightline.network.tap import evaluating, logits_of

Normalize = Literal["weights", "batch"]


# ---- what all of them share ----


class Stored(nn.Module):
    """A tensor that is saved and moves with its module, but is no buffer: DDP gives every process the first one's buffers.

    Attributes:
        values: the tensor, empty until it is set; it keeps its type when the module is cast.
    """

    def __init__(self) -> None:
        super().__init__()
        self.values = torch.empty(0)

    def get_extra_state(self) -> Tensor:
        """What `state_dict` saves."""
        return self.values

    def set_extra_state(self, state: Tensor) -> None:
        """Take what `state_dict` saved, whatever its size."""
        self.values = state.detach().to(self.values.device, copy=True)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Stored":
        self.values = self.values.to(fn(self.values).device)
        return super()._apply(fn, recurse)


class Reweighter(Guide):
    """A guide that weighs the task loss of each image, and remembers the weights by the images' places in the data set.

    Args:
        normalize: what the weighted loss is divided by: the sum of the `"weights"`, or the number of images in the `"batch"`.
    """

    min_weight = 0.0

    def __init__(self, normalize: Normalize) -> None:
        super().__init__()
        if normalize not in get_args(Normalize):
            raise SightlineError(f"normalize is {normalize!r}; expected 'weights' or 'batch'")
        self.normalize = normalize
        self._stored = Stored()
        self._fresh = torch.zeros(0, dtype=torch.bool)  # set on this process since all agreed
        self._spread: dict[str, Tensor] = {}

    @property
    def weights(self) -> Tensor:
        """The weight (N,) that each image of the data set got last; 1 where it has none yet, empty before `on_epoch_start`."""
        return self._stored.values

    def weight_total(self, batch: Batch) -> Tensor | None:
        """The number of images, where that is what the loss is divided by."""
        return torch.tensor(float(len(batch))) if self.normalize == "batch" else None

    def losses(self, context: Context) -> dict[str, Tensor]:
        """No terms; logs the spread of the weights as the epoch began, which shows whether they saturate."""
        context.figures |= self._spread
        return {}

    def on_epoch_start(self, objective: GuidedModel, loader: Iterable[Batch], epoch: int) -> None:
        """Make room for the data set's weights, and agree with the other processes on them.

        Raises:
            SightlineError: weights were kept of a data set of another size.
        """
        device = next(objective.model.parameters()).device
        if not len(self.weights):
            self._stored.values = torch.ones(_images(loader, device), device=device)
        elif isinstance(count := _sized(loader), int) and count != len(self.weights):
            raise SightlineError(
                f"the data set has {count} images; the weights that were kept are of {len(self.weights)}"
            )
        self._stored.to(device)
        self.synchronize()
        self._spread = spread(self.weights, self.min_weight)

    def synchronize(self) -> None:
        """Give every process the weights that each set; an image that several of them saw gets their mean."""
        values, fresh = self.weights, self._fresh
        self._fresh = torch.zeros_like(values, dtype=torch.bool)
        if _processes() == 1 or not len(values):
            return
        # float64 holds the sum of two float32 and, alone, each of them exactly.
        seen = fresh.to(values.device) if len(fresh) else self._fresh
        sums = torch.stack([values.double() * seen, seen.double()])
        dist.all_reduce(sums)
        self._stored.values = torch.where(sums[1] > 0, sums[0] / sums[1].clamp_min(1), values.double()).to(values)

    def _remember(self, batch: Batch, weights: Tensor) -> None:
        """Keep weights (B,) of a batch."""
        rows = self._rows(batch)
        self.weights[rows] = weights.detach().to(self.weights)
        self._fresh[rows] = True

    def _noted(self, batch: Batch, weights: Tensor) -> Tensor:
        """The weights, after they were kept for whoever ranks the images."""
        if self.training and len(self.weights):
            self._remember(batch, weights)
        return weights

    def _rows(self, batch: Batch) -> Tensor:
        """The places (B,) of a batch's images among the weights."""
        if batch.indices is None:
            raise SightlineError("weights are kept by batch.indices, which this batch does not have")
        low, high = torch.aminmax(batch.indices)
        if low < 0 or high >= len(self.weights):
            raise SightlineError(
                f"batch.indices range over [{low}, {high}]; there are weights of {len(self.weights)} images "
                "(call on_epoch_start with the training data before every epoch)"
            )
        return batch.indices.to(self.weights.device)


class StoredWeights(Reweighter):
    """Weights that a pass over the training data finds, and that stay until the next one; they start at 1.

    The model is in eval mode during the pass, its images are not augmented where the loader is the one that `sightline train`
    gives, and each process measures its share.

    Args:
        interval: k: the pass comes before the epochs k, 2 k, ..., counted from 0.
        min_weight: the least weight.
        normalize: what the weighted loss is divided by: the sum of the `"weights"`, or the number of images in the `"batch"`.
    """

    def __init__(self, interval: int, min_weight: float, normalize: Normalize) -> None:
        super().__init__(normalize)
        if isinstance(interval, bool) or not isinstance(interval, int) or interval < 1:
            raise SightlineError(f"interval is {interval!r}; expected a whole number of epochs of at least 1")
        if not 0 <= min_weight <= 1:
            raise SightlineError(f"min_weight is {min_weight}; expected a weight in [0, 1]")
        self.interval, self.min_weight = interval, min_weight

    def measure(self, objective: GuidedModel, batch: Batch) -> Tensor:
        """The weights (B,) of a batch by the model as it is, in eval mode; for subclasses to give."""
        raise NotImplementedError

    def sample_weights(self, logits: Tensor, batch: Batch) -> Tensor | None:
        """The stored weights (B,); 1 outside training."""
        return self.weights[self._rows(batch)] if self.training else None

    def weight_total(self, batch: Batch) -> Tensor | None:
        """The sum of the stored weights, or the number of images."""
        if self.normalize == "batch" or not self.training:
            return torch.tensor(float(len(batch)))
        return self.weights[self._rows(batch)].sum()

    def on_epoch_start(self, objective: GuidedModel, loader: Iterable[Batch], epoch: int) -> None:
        """Every k epochs, measure the weights of all images that the loaders of the processes give.

        Raises:
            SightlineError: on every process, if a weight cannot be measured, as where the model gives NaN.
        """
        super().on_epoch_start(objective, loader, epoch)
        if self.due(epoch):
            self._measure_all(objective, loader)
            self._spread = spread(self.weights, self.min_weight)

    def due(self, epoch: int) -> bool:
        """Whether a pass comes before this epoch."""
        return epoch > 0 and epoch % self.interval == 0

    def _measure_all(self, objective: GuidedModel, loader: Iterable[Batch]) -> None:
        problem: SightlineError | None = None
        steps: Any = len(loader) if hasattr(loader, "__len__") else None  # type: ignore[arg-type]
        visible = not dist.is_available() or not dist.is_initialized() or dist.get_rank() == 0
        device = self.weights.device
        try:
            with evaluating(objective.model), bar(visible, "reweighting", steps) as advance:
                for batch in loader:
                    here = batch.to(device, non_blocking=True)
                    weights = self.measure(objective, here).clamp_min(self.min_weight)
                    if not (finite := weights.isfinite()).all():
                        bad = here.indices[~finite].tolist() if here.indices is not None else "unknown"
                        raise SightlineError(
                            f"the weights of images {bad} are NaN or infinite; is the model finite there?"
                        )
                    self._remember(here, weights)
                    advance(1)
        except SightlineError as error:
            problem = error
        failed = torch.tensor(float(problem is not None), device=device)
        if _processes() > 1:
            dist.all_reduce(failed)
        if problem is not None:
            raise problem
        if failed:
            raise SightlineError("another process could not measure the weights of its images; its message says why")
        self.synchronize()


def spread(weights: Tensor, min_weight: float = 0.0) -> dict[str, Tensor]:
    """Least, median and greatest of weights (N,), and the share of them that is at the floor: what shows saturation."""
    return {
        "weights/min": weights.amin(),
        "weights/median": weights.median(),
        "weights/max": weights.amax(),
        "weights/at_min": (weights <= min_weight).to(weights.dtype).mean(),
    }


# ---- the rivals ----


@GUIDES.register("hard_negative_mining", needs_masks=False, needs_layer=False, pixel_space=False, reweights=True)
class HardNegativeMining(StoredWeights):
    """Hard negative mining: an image weighs 1 - p, with p the probability that the model gives its label.

    Where images can have several labels, it is the mean of 1 - p over the classes, as the task loss is, with p the probability
    of what is true of the class: that the image shows it, or that it does not.

    The rival of "Improving Network Interpretability via Explanation Consistency Evaluation", refreshed as its weights are.

    Args:
        interval: the epochs between two passes over the data.
        ohem_fraction: replaces the pass by online hard example mining (OHEM, Shrivastava et al. 2016): at every step, this
            fraction of the batch, the images with the highest losses, has weight 1, and the rest weight 0. Each process
            selects among its own images.
        normalize: what the weighted loss is divided by: the sum of the `"weights"`, or the number of images in the `"batch"`.
    """

    multi_label = True

    def __init__(self, interval: int = 4, ohem_fraction: float | None = None, normalize: Normalize = "weights") -> None:
        super().__init__(interval, 0.0, normalize)
        if ohem_fraction is not None and not 0 < ohem_fraction <= 1:
            raise SightlineError(
                f"ohem_fraction is {ohem_fraction}; expected a share of the batch above 0 and at most 1, or None"
            )
        self.ohem_fraction = ohem_fraction

    def measure(self, objective: GuidedModel, batch: Batch) -> Tensor:
        """1 - p of the label, for each image (B,)."""
        images = batch.images if objective.input_spec is None else objective.input_spec.normalize(batch.images)
        with torch.inference_mode():
            logits = logits_of(objective.unwrap_model()(images))
            return -torch.expm1(_log_probabilities(logits, batch.labels)).mean(1)

    def sample_weights(self, logits: Tensor, batch: Batch) -> Tensor | None:
        """The stored weights (B,), or which images are kept."""
        if self.ohem_fraction is None or not self.training:
            return super().sample_weights(logits, batch)
        losses = task_loss(logits.detach(), batch.labels)
        kept = torch.zeros_like(losses)
        kept[losses.topk(self._kept(batch)).indices] = 1
        return self._noted(batch, kept)

    def weight_total(self, batch: Batch) -> Tensor | None:
        """The sum of the weights, or the number of images."""
        if self.ohem_fraction is None or not self.training or self.normalize == "batch":
            return super().weight_total(batch)
        return torch.tensor(float(self._kept(batch)))

    def due(self, epoch: int) -> bool:
        """Whether a pass comes before this epoch; never with `ohem_fraction`."""
        return self.ohem_fraction is None and super().due(epoch)

    def _kept(self, batch: Batch) -> int:
        assert self.ohem_fraction is not None
        return ceil(self.ohem_fraction * len(batch))


@GUIDES.register("focal", needs_masks=False, needs_layer=False, pixel_space=False, reweights=True)
class Focal(Reweighter):
    """Focal loss: the loss of each image times (1 - p)^gamma, p the probability of its label (Lin et al. 2017).

    The factor is part of the loss: gradients go through it. There is no alpha. Where images can have several labels, every
    class's binary cross-entropy has its own factor, p the probability of what is true of the class, and the loss is their
    mean; an image's weight is the factor of the whole, focal loss / cross-entropy.

    Args:
        gamma: the exponent; 0 is the cross-entropy.
        normalize: what the loss is divided by: the number of images in the `"batch"` (focal loss as it is known), or the sum of
            the `"weights"`, held fixed.
    """

    multi_label = True

    def __init__(self, gamma: float = 2.0, normalize: Normalize = "batch") -> None:
        super().__init__(normalize)
        if not gamma >= 0:
            raise SightlineError(f"gamma is {gamma}; expected a number >= 0")
        self.gamma = gamma

    def sample_weights(self, logits: Tensor, batch: Batch) -> Tensor:
        """(1 - p)^gamma for each image (B,), differentiable."""
        return self._noted(batch, _focal(logits, batch.labels, self.gamma))


@GUIDES.register("equalized_focal", needs_masks=False, needs_layer=False, pixel_space=False, reweights=True)
class EqualizedFocal(Focal):
    """Equalized focal loss: focal loss whose gamma grows for classes that get little positive gradient (Li et al. 2022).

    gamma_j = gamma + scale (1 - g_j) for class j, and the weight of an image of this class is
    (gamma_j / gamma) (1 - p)^gamma_j. g_j is the sum of the gradients that the cross-entropy's logit j has had from images of
    the class, by the sum of those from others, clipped to [0, 1]. The paper has one sigmoid a class, and so has this where
    images can have several labels: as for focal loss, every class's term then has the factor of its own gamma_j. For one label
    p is the softmax. The gradient at logit j is 1 - p_j for images of the class and p_j for others, with both.

    Args:
        gamma: the exponent of a class in balance, above 0.
        scale: the most that is added to it.
        normalize: what the loss is divided by: as for focal loss.
    """

    def __init__(self, gamma: float = 2.0, scale: float = 8.0, normalize: Normalize = "batch") -> None:
        super().__init__(gamma, normalize)
        if not gamma > 0:
            raise SightlineError(f"gamma is {gamma}; expected a number above 0")
        if not scale >= 0:
            raise SightlineError(f"scale is {scale}; expected a number >= 0")
        self.scale = scale
        self._gradients = Stored()

    @property
    def gammas(self) -> Tensor:
        """gamma_j (K,) of each class by the gradients so far; empty before the first training step."""
        if not len(self._gradients.values):
            return self._gradients.values
        positive, negative = self._gradients.values
        ratio = torch.where(negative > 0, positive / negative, 1.0).clamp(0, 1)
        return self.gamma + self.scale * (1 - ratio)

    def sample_weights(self, logits: Tensor, batch: Batch) -> Tensor:
        """(gamma_y / gamma) (1 - p)^gamma_y for each image (B,), differentiable; counts the gradients afterwards."""
        gammas = self.gammas.to(logits.device)
        if not len(gammas):
            gammas = torch.full(logits.shape[1:], self.gamma, device=logits.device)
        gamma = gammas if batch.multi_label else gammas[batch.labels, None]
        weights = _focal(logits, batch.labels, gamma, gamma / self.gamma)
        if self.training:
            self._count(logits.detach(), batch.labels)
        return self._noted(batch, weights)

    def _count(self, logits: Tensor, labels: Tensor) -> None:
        """Add the gradients of a batch, those of all processes."""
        several = labels.ndim == 2
        probabilities = logits.double().sigmoid() if several else logits.double().softmax(1)
        own = labels.bool() if several else F.one_hot(labels, logits.shape[1]).bool()
        sums = torch.stack([(1 - probabilities).where(own, 0).sum(0), probabilities.where(~own, 0).sum(0)])
        if _processes() > 1:
            dist.all_reduce(sums)
        before = self._gradients.values.to(sums.device)
        self._gradients.values = sums + before if len(before) else sums


def _focal(logits: Tensor, labels: Tensor, gamma: float | Tensor, scale: float | Tensor = 1.0) -> Tensor:
    """The factor (B,) that makes each image's task loss a focal loss: scale (1 - p)^gamma, with gamma and scale (B, 1).

    Where images can have several labels, gamma and scale are those of the classes (K,), and the factor is the classes' own
    factors averaged by their losses.
    """
    logs = _log_probabilities(logits, labels)
    wrong = -torch.expm1(logs)
    # A power below 1 has no gradient at 0.
    factors = scale * wrong.clamp_min(torch.finfo(wrong.dtype).tiny) ** gamma
    if labels.ndim == 1:
        return factors[:, 0]
    return (factors * -logs).sum(1) / (-logs).sum(1).clamp_min(1e-12)


def _log_probabilities(logits: Tensor, labels: Tensor) -> Tensor:
    """Of each image's label (B, 1), by the softmax; for labels (B, K), of what is true of each class (B, K), by the sigmoid."""
    wide = at_least_float32(logits)
    if labels.ndim == 1:
        return wide.log_softmax(1).gather(1, labels[:, None])
    return F.logsigmoid(torch.where(labels.bool(), wide, -wide))


def _processes() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def _sized(loader: Iterable[Batch]) -> int | None:
    """How many images the loader's data set has, where it says so."""
    dataset = getattr(loader, "dataset", None)
    return len(dataset) if hasattr(dataset, "__len__") else None  # type: ignore[arg-type]


def _images(loader: Iterable[Batch], device: torch.device) -> int:
    """How many images the data set has: as the loader says, or by the indices in its batches over all processes."""
    if (count := _sized(loader)) is not None:
        return count
    highest = torch.tensor(
        max((int(b.indices.max()) for b in loader if b.indices is not None), default=-1), device=device
    )
    if _processes() > 1:
        dist.all_reduce(highest, dist.ReduceOp.MAX)
    if highest < 0:
        raise SightlineError("weights are kept by batch.indices, which no batch of the loader has")
    return int(highest) + 1
