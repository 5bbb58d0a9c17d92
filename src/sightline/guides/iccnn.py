"""icCNN: groups of filters that each stand for one part or region, without annotation of parts."""

from collections.abc import Iterable, Sized

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.nn.functional import all_reduce

from sightline._core.checks import check_count, check_non_negative
from sightline._core.distributed import is_first_process, raising_everywhere, sum_over_processes, world_size
from sightline._core.progress import bar
from sightline._core.tensors import at_least_float32
from sightline.data.batch import Batch
from sightline.errors import SightlineError
from sightline.guides.registry import GUIDES
from sightline.guides.sample_weights import Stored
from sightline.models.filter_groups import carry_filter_groups
from sightline.network.filter_groups import (
    Moments,
    class_coherence,
    filter_similarity,
    group_activity,
    membership,
    part_coherence,
    spectral_groups,
)
from sightline.network.input_spec import to_inputs
from sightline.network.modes import evaluating
from sightline.objectives.base import Context, Guide, GuidedModel, all_images


@GUIDES.register("iccnn", needs_layer=True)
class ICCNN(Guide):
    """icCNN: filters of a layer fall into groups; those of a group respond similarly, and unlike the others.

    The objective is CE + weight * L_part + class_weight * L_class. With s_ij the correlation + 1 of two filters' maps in the
    batch, L_part = -sum_k sum_{i,j in A_k} s_ij / sum_{i in A_k, j} s_ij over the groups A_k. L_class is the same ratio of
    images instead of filters, within a class and to all, by the cosine of how strongly they drive the groups. Multi-category
    classification has both. Single-category has L_part alone: `class_weight=0`, and `category` where one class is an object.

    The filters are grouped again before the epochs 0, `interval`, 2 `interval`, ...: spectral clustering of s_ij over the
    training images, by the model in eval mode. Over several processes, all their images count as one batch, for the losses
    too; under gradient accumulation each batch has its own losses. `iccnn/coherence` in the log is -L_part: 1 where the
    groups mean nothing. The released code centers maps on a moving average over batches; here it is the batch's own mean.

    Args:
        groups: how many groups of filters, at least 2.
        weight: lambda, of L_part.
        class_weight: beta, of L_class; 0 leaves it out.
        interval: the epochs between two groupings.
        category: the class whose images L_part and the grouping look at; None = all images.

    References:
        Shen et al., "Interpretable Compositional Convolutional Neural Networks" (IJCAI 2021), the filter loss.
        Wu et al., "Improving Network Interpretability via Explanation Consistency Evaluation" (IEEE Transactions on Multimedia
            2024), section IV-B, for the weights and `interval`.
    """

    needs_tap = True
    second_order = False

    def __init__(
        self,
        groups: int = 16,
        weight: float = 0.1,
        class_weight: float = 0.1,
        interval: int = 2,
        category: int | None = None,
    ) -> None:
        super().__init__()
        check_count(2, groups=groups)
        check_count(interval=interval)
        check_non_negative(weight=weight, class_weight=class_weight)
        self.groups, self.weight, self.class_weight, self.interval = groups, weight, class_weight, interval
        self.category = category
        self._assigned = Stored()

    @property
    def filter_groups(self) -> Tensor:
        """The group (C,) of every filter of the layer, in 0 .. groups - 1; empty before `on_epoch_start`."""
        return self._assigned.values

    def sample_mask(self, batch: Batch) -> dict[str, Tensor]:
        """L_part looks at the category's images, or at all; L_class at all."""
        everyone = all_images(batch)
        looked_at = everyone if self.category is None else batch.labels == self.category
        return {"iccnn_part": looked_at} | ({"iccnn_class": everyone} if self.class_weight else {})

    def losses(self, context: Context) -> dict[str, Tensor]:
        """weight * L_part and class_weight * L_class, the same (B,) for every image of the batch.

        Raises:
            SightlineError: the filters have no groups yet, or those of a layer of another size.
        """
        batch = context.batch
        activations = at_least_float32(context.tapped[0].activations[0][: len(batch)])
        assigned = self.filter_groups.to(activations.device)
        if len(assigned) != activations.shape[1]:
            has = f"groups of {len(assigned)} filters" if len(assigned) else "no groups of filters yet"
            raise SightlineError(
                f"iccnn has {has}, and the layer has {activations.shape[1]} filters; call on_epoch_start "
                "with the training data before every epoch"
            )
        total = _total if self.training else _local
        members = membership(assigned, self.groups)
        values = {}
        with torch.autocast(activations.device.type, enabled=False):
            looked_at = self.sample_mask(batch)["iccnn_part"]
            coherence = part_coherence(filter_similarity(activations, looked_at, total), members)
            context.figures["iccnn/coherence"] = coherence.detach()
            values["iccnn_part"] = -self.weight * coherence
            if self.class_weight:
                activity = group_activity(activations, members)
                agreement = class_coherence(activity, batch.labels, context.logits.shape[1], total)
                values["iccnn_class"] = -self.class_weight * agreement
        return {name: value.expand(len(batch)) for name, value in values.items()}

    def on_epoch_start(self, objective: GuidedModel, loader: Iterable[Batch], epoch: int) -> None:
        """Group the filters by all images that the loaders of the processes give, if their time has come.

        The layer carries the groups from then on, for the explainer `iccnn`.

        Raises:
            SightlineError: on every process, if the filters of one cannot be grouped, as where the model gives NaN.
        """
        device = next(objective.model.parameters()).device
        self._assigned.to(device)
        if not len(self.filter_groups) or epoch % self.interval == 0:
            similarity = self._similarity(objective, loader, device)
            assigned = spectral_groups(similarity, self.groups).to(device)
            if world_size() > 1:
                dist.broadcast(assigned, 0)  # similarities may differ in the last digit between machines
            self._assigned.values = assigned
        assert objective.layer is not None
        carry_filter_groups(objective.unwrap_model(), objective.layer, self.filter_groups.clone())

    def _similarity(self, objective: GuidedModel, loader: Iterable[Batch], device: torch.device) -> Tensor:
        """Return the similarity (C, C) of the filters over the images of all processes."""
        moments = Moments()
        with raising_everywhere(device, "another process could not look at its images; its message says why"):
            self._look(moments, objective, loader, device)
        if world_size() > 1:
            moments.values = sum_over_processes(moments.values.to(device)).cpu()
        return moments.similarity()

    def _look(self, moments: Moments, objective: GuidedModel, loader: Iterable[Batch], device: torch.device) -> None:
        """Count in the activations of this process's images."""
        assert objective.tap is not None
        steps = len(loader) if isinstance(loader, Sized) else None
        with (
            evaluating(objective.model),
            torch.no_grad(),
            bar(is_first_process(), "grouping filters", steps) as advance,
        ):
            for batch in loader:
                here = batch.to(device, non_blocking=True)
                images = to_inputs(here.images, objective.input_spec)
                activations = objective.tap(images).activations[0]
                moments.add(activations[self.sample_mask(here)["iccnn_part"]])
                advance(1)
        if not len(moments.values):
            raise SightlineError("filters cannot be grouped: the loader gave no batch")


def _local(tensor: Tensor) -> Tensor:
    """Return the sum of this process."""
    return tensor


def _total(tensor: Tensor) -> Tensor:
    """Return the sum over processes, differentiably: the gradient of each is that of all processes' losses."""
    return all_reduce(tensor) if world_size() > 1 else tensor
