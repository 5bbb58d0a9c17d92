"""Models that carry their own explainer: what the branch or the groups that a guide gave them show."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sightline._core.tensors import at_least_float32
from sightline.errors import NotDefinedError, SightlineError
from sightline.explainers.base import Explainer, normalize_maps, resize_maps
from sightline.explainers.places import warn_of_few_places
from sightline.explainers.registry import EXPLAINERS
from sightline.models.attention_branch import attention_branch_of
from sightline.models.filter_groups import carried_filter_groups
from sightline.models.gates import pooling_gate_of
from sightline.models.two_branch import two_branch_of
from sightline.network.layers import LayerSelection
from sightline.network.modes import in_this_thread
from sightline.network.tap import Tap
from sightline.network.targets import Targets, resolve_score


@EXPLAINERS.register("impactx", needs_layer=False)
class OwnMap(Explainer):
    """The map that an IMPACTX or WAE model predicts with its logits: its positive part, scaled to [0, 1].

    The model has one map per image, that of the class it decides for; `targets` changes nothing. A model without the branch
    is not defined.

    Args:
        raw: return the predicted map unchanged, with its sign.

    References:
        Apicella et al., "IMPACTX: improving model performance by appropriately constraining the training with teacher
            explanations" (Artificial Intelligence Review 2026), section 3.4.
    """

    def __init__(self, raw: bool = False) -> None:
        self.raw = raw

    def explain(self, model: nn.Module, inputs: Tensor, targets: Targets, layer: LayerSelection) -> Tensor:
        """Return maps (B, H, W)."""
        branch = two_branch_of(model)
        maps = at_least_float32(branch.decoder(branch.lep(inputs)))
        return resize_maps(maps if self.raw else normalize_maps(maps.relu()), (inputs.shape[-2], inputs.shape[-1]))


@EXPLAINERS.register("attention_branch", needs_layer=False)
class OwnAttention(Explainer):
    """The attention of an attention branch network, resized and scaled to [0, 1]; `targets` changes nothing.

    References:
        Fukui et al., "Attention Branch Network: Learning of Attention Mechanism for Visual Explanation" (CVPR 2019), the
            attention branch.
    """

    def explain(self, model: nn.Module, inputs: Tensor, targets: Targets, layer: LayerSelection) -> Tensor:
        """Return maps (B, H, W)."""
        branch = attention_branch_of(model)
        if branch is None:
            raise NotDefinedError(f"{type(model).__name__} has no attention branch; train it with that guide")
        attention, _ = _returned(branch, model, inputs)
        return normalize_maps(resize_maps(at_least_float32(attention), (inputs.shape[-2], inputs.shape[-1])))


@EXPLAINERS.register("attention_pooling", needs_layer=False)
class PoolingAttention(Explainer):
    """The attention by which a model pools its last feature map, resized and scaled to [0, 1]; `targets` changes nothing.

    References:
        Mitsuhara et al., "Embedding Human Knowledge into Deep Neural Network via Attention Map" (VISAPP 2021), for an attention
            that is trained by masks. The pooling is sightline's.
    """

    def explain(self, model: nn.Module, inputs: Tensor, targets: Targets, layer: LayerSelection) -> Tensor:
        """Return maps (B, H, W)."""
        gate = pooling_gate_of(model)
        if gate is None:
            raise NotDefinedError(
                f"{type(model).__name__} has no attention pooling; train it with that guide, or fit such a head"
            )
        attention = at_least_float32(_returned(gate, model, inputs)[..., 0]).sigmoid()
        return normalize_maps(resize_maps(attention, (inputs.shape[-2], inputs.shape[-1])))


def _returned(branch: nn.Module, model: nn.Module, inputs: Tensor) -> Any:
    """Return what a part of a model returns in one forward pass."""
    heard: list[Any] = []
    with branch.register_forward_hook(in_this_thread(lambda module, args, output: heard.append(output))):
        model(inputs)
    return heard[0]


@EXPLAINERS.register("iccnn", needs_gradient=True, needs_layer=True)
class GroupMap(Explainer):
    """What a group of icCNN's filters responds to: the mean of their positive activations, resized and scaled to [0, 1].

    Of all groups it is the one that adds the most to the explained score: the largest sum of activation x gradient over its
    filters and places.

    Args:
        groups: (C,) the group of each filter of the layer, such as `ICCNN.filter_groups`; None = those that the layer carries
            since the guide made them, or since its run was loaded. `layer` may be left out then.
        group: the group to show, regardless of the class; None = for each image the one above.

    References:
        Shen et al., "Interpretable Compositional Convolutional Neural Networks" (IJCAI 2021), whose groups stand for parts.
            Which of them explains a class it does not say; that choice is ours.
    """

    def __init__(self, groups: Tensor | Sequence[Any] | None = None, group: int | None = None) -> None:
        try:
            self.groups = None if groups is None else torch.as_tensor(groups, dtype=torch.int64)
        except (TypeError, ValueError, RuntimeError):
            self.groups = torch.empty(0)
        if self.groups is not None and (self.groups.ndim != 1 or not len(self.groups) or self.groups.min() < 0):
            raise SightlineError("groups must give every filter of the layer the number of its group, from 0")
        self.group = group

    def explain(self, model: nn.Module, inputs: Tensor, targets: Targets, layer: LayerSelection) -> Tensor:
        """Return maps (B, H, W)."""
        groups, own = self.groups, None
        if groups is None:
            carried = carried_filter_groups(model)
            if carried is None:
                raise NotDefinedError(
                    f"{type(model).__name__} has no groups of filters; give groups=, or train it with the guide iccnn"
                )
            own, groups = carried
        tap = Tap(model, own if layer is None else layer)
        names = [each.name for each in tap.layers]
        if len(names) > 1 or own not in (None, names[0]):
            raise SightlineError(f"layer names {', '.join(names)}; name the layer of the groups, {own or 'one layer'}")
        tapped = tap(inputs)
        warn_of_few_places(model, inputs, tapped.layers, tapped.activations)
        activations = at_least_float32(tapped.activations[0].detach())
        members = self._members(groups.to(inputs.device), activations.shape[1]).to(activations)
        if self.group is None:
            with torch.enable_grad():
                score = resolve_score(targets, tapped.output)
                scores = score(tapped.output, torch.arange(len(inputs), device=inputs.device))
                gradients = at_least_float32(tapped.gradients(scores)[0])
            chosen = ((activations * gradients).sum((2, 3)) @ members).argmax(1)
        else:
            chosen = torch.full((len(inputs),), self.group, device=inputs.device)
        shares = (members / members.sum(0).clamp_min(1)).T[chosen]  # (B, C)
        maps = torch.einsum("bchw,bc->bhw", activations.clamp_min(0), shares)
        return normalize_maps(resize_maps(maps, tapped.image_size))

    def _members(self, groups: Tensor, filters: int) -> Tensor:
        """(C, K): 1 where a filter is in a group."""
        if len(groups) != filters:
            raise SightlineError(f"groups has {len(groups)} entries; the layer has {filters} filters")
        count = int(groups.max()) + 1
        if self.group is not None and not 0 <= self.group < count:
            raise SightlineError(f"group is {self.group}; the layer has the groups 0 to {count - 1}")
        return nn.functional.one_hot(groups, count)
