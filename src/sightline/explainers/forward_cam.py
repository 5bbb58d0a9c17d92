"""Class activation maps without gradients: a channel's weight is what the model answers when it is run again.

Ablation-CAM takes a channel away and runs what follows the layer; Score-CAM shows the model the part of the image that
the channel covers. Both run images x channels in full batches, in bounded memory, and the map is the CAMs' own:
ReLU(sum_k a_k A_k) at the layer's resolution. The weights are constants: no gradient goes through the runs behind them. A
loss can train through the activations alone (`ForwardCAM.raw_maps`).
"""

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from sightline._core.checks import check_count
from sightline._core.internal_batches import InternalBatches
from sightline._core.tensors import at_least_float32, has_contrast
from sightline.explainers.base import Explainer, normalize_maps, resize_maps
from sightline.explainers.places import tap_layers, warn_of_few_places
from sightline.explainers.precision import in_float32
from sightline.explainers.registry import EXPLAINERS
from sightline.network.layers import LayerSelection, resolve_layers
from sightline.network.layout import Layer, to_spatial
from sightline.network.logits import probabilities_of
from sightline.network.modes import evaluating
from sightline.network.tap import Tap, Tapped
from sightline.network.targets import Targets, resolve_score

# Denominators below this are taken for this: a class with a score below zero must not turn its map round.
SMALLEST_SCORE = 1e-6


class ForwardCAM(Explainer):
    """A class activation map whose channel weights come from running the model again.

    Args:
        internal_batch_size: rows (images x channels) in one call to the model; None = chosen by their size.
    """

    def __init__(self, internal_batch_size: int | None = None) -> None:
        self.batches = InternalBatches(internal_batch_size)

    def explain(self, model: nn.Module, inputs: Tensor, targets: Targets, layer: LayerSelection) -> Tensor:
        """Return maps (B, H, W) in [0, 1]: resized to the input, normalized, and averaged over the layers."""
        maps = []
        for each in resolve_layers(model, layer, inputs):
            activations, weights = self.channel_weights(model, inputs, targets, each)
            raw = (weights[:, :, None, None] * activations).sum(1).relu()
            maps.append(normalize_maps(resize_maps(raw, (inputs.shape[-2], inputs.shape[-1]))))
        return maps[0] if len(maps) == 1 else torch.stack(maps).mean(0)

    def raw_maps(self, model: nn.Module, inputs: Tensor, tapped: Tapped, targets: Tensor) -> Tensor:
        """Return the map (B, h, w) of a forward pass by the formula, with a gradient through the activations alone.

        The weights are constants. They come from the model in eval mode. Batch norm does not count the changed images.

        Args:
            model: the classifier.
            inputs: (B, C, H, W), those of the forward pass, as the model takes them.
            tapped: the forward pass, through one layer.
            targets: (B,) classes.
        """
        (layer,) = tapped.layers
        with (
            torch.no_grad(),
            evaluating(model),
            in_float32(model, inputs.detach(), targets, layer) as (wide, seen, wanted, layers),
        ):
            _, weights = self.channel_weights(wide, seen, wanted, resolve_layers(wide, layers)[0])
        with torch.autocast(weights.device.type, enabled=False):
            return (weights[:, :, None, None] * at_least_float32(tapped.activations[0])).sum(1).relu()

    @abstractmethod
    def channel_weights(
        self, model: nn.Module, inputs: Tensor, targets: Targets, layer: Layer
    ) -> tuple[Tensor, Tensor]:
        """Return the activations (B, C, h, w) of a layer and the weights (B, C) of its channels, float32 at least."""


@EXPLAINERS.register("ablationcam", needs_layer=True)
class AblationCAM(ForwardCAM):
    """Ablation-CAM: channels weighted by how much of the score is lost without them (Desai & Ramaswamy 2020).

    a_k = (Y - Y_k) / max(Y, 1e-6), with Y_k the score where A_k is set to 0. In tokens, A_k is what the places hold: class
    and register tokens do not change. The tail is cut out of the model once, so a channel costs a tail and not a
    forward pass; where the model cannot be traced, it costs a forward pass, and the reason is logged.

    Args:
        softmax: ask the probabilities instead of the logits; targets then see them as the model's output.
        internal_batch_size: ablations (images x channels) in one call to the tail; None = chosen by their size.

    References:
        Desai, Ramaswamy, "Ablation-CAM: Visual Explanations for Deep Convolutional Network via Gradient-free Localization"
            (WACV 2020), the weights by the drop of the score.
    """

    def __init__(self, softmax: bool = False, internal_batch_size: int | None = None) -> None:
        super().__init__(internal_batch_size)
        self.softmax = softmax

    def explain(self, model: nn.Module, inputs: Tensor, targets: Targets, layer: LayerSelection) -> Tensor:
        """Return maps (B, H, W) in [0, 1], computed at least in float32, because weights are small differences of scores."""
        with in_float32(model, inputs, targets, layer) as precise:
            return super().explain(*precise)

    def channel_weights(
        self, model: nn.Module, inputs: Tensor, targets: Targets, layer: Layer
    ) -> tuple[Tensor, Tensor]:
        """Return the activations, and the fraction of the score that is lost without each channel."""
        size = (inputs.shape[-2], inputs.shape[-1])
        tail = Tap(model, layer).tail(inputs)
        activations = to_spatial(layer, tail.raw, size)
        warn_of_few_places(model, inputs, [layer], [activations])
        output = self._answer(tail.output)
        score = resolve_score(targets, output)
        whole = at_least_float32(score(output, torch.arange(len(inputs), device=inputs.device)))

        # A channel of zeros loses nothing, and needs no run to show it.
        images, channels = (activations != 0).any(3).any(2).nonzero(as_tuple=True)

        def scores_without(start: int, stop: int) -> Tensor:
            of, ablated = images[start:stop], channels[start:stop]
            raw = tail.raw[of]
            to_spatial(layer, raw, size)[torch.arange(len(of), device=of.device), ablated] = 0  # a view: writes to raw
            return at_least_float32(score(self._answer(tail(raw, of)), of))

        weights = whole.new_zeros(activations.shape[:2])
        if len(images):
            # A tail costs what its activations weigh (each counts as a pixel), and never more than the model itself.
            light = tail.is_cut and tail.raw[0].numel() < size[0] * size[1]
            costs = tail.raw.flatten(1)[:, None] if light else inputs
            lost = whole[images] - self.batches.map(scores_without, len(images), costs)
            weights[images, channels] = lost / whole[images].clamp_min(SMALLEST_SCORE)
        return at_least_float32(activations), weights

    def _answer(self, output: Any) -> Any:
        return probabilities_of(output) if self.softmax else output


@EXPLAINERS.register("scorecam", needs_layer=True)
class ScoreCAM(ForwardCAM):
    """Score-CAM: channels weighted by the score of the image seen through them (Wang et al. 2020, Algorithm 1).

    a_k = softmax over k of Y(x * mask_k), with mask_k the channel resized to the input, then shifted and scaled to [0, 1]; x
    is the input as the model takes it, so what is masked out becomes 0 there. (The paper subtracts the score of a
    baseline image from each, which cancels in the softmax.) The mask of a constant channel is 0 everywhere.

    Args:
        top: run only the `top` channels of an image with the highest energy, the sum of their squared activations; the others
            get the weight 0. None = all.
        internal_batch_size: masked images (images x channels) in one call to the model; None = chosen by their size.

    References:
        Wang et al., "Score-CAM: Score-Weighted Visual Explanations for Convolutional Neural Networks" (CVPR workshops 2020),
            Algorithm 1.
    """

    def __init__(self, top: int | None = None, internal_batch_size: int | None = None) -> None:
        super().__init__(internal_batch_size)
        if top is not None:
            check_count(top=top)
        self.top = top

    def channel_weights(
        self, model: nn.Module, inputs: Tensor, targets: Targets, layer: Layer
    ) -> tuple[Tensor, Tensor]:
        """Return the activations, and the softmax over channels of the masked images' scores."""
        tapped = tap_layers(model, layer, inputs)
        activations = at_least_float32(tapped.activations[0].detach())
        score = resolve_score(targets, tapped.output)

        chosen = activations.new_ones(activations.shape[:2], dtype=torch.bool)
        if self.top is not None and self.top < activations.shape[1]:
            energy = activations.square().sum((2, 3))
            chosen = torch.zeros_like(chosen).scatter(1, energy.topk(self.top).indices, True)
        constant = ~has_contrast(activations)
        images, channels = (chosen & ~constant).nonzero(as_tuple=True)

        def masked_scores(start: int, stop: int) -> Tensor:
            of = images[start:stop]
            masks = normalize_maps(resize_maps(activations[of, channels[start:stop]], tapped.image_size))
            return at_least_float32(score(model(inputs[of].mul_(masks[:, None])), of))

        scores = activations.new_full(activations.shape[:2], -torch.inf)
        if len(images):
            scores[images, channels] = self.batches.map(masked_scores, len(images), inputs).to(scores)
        if (chosen & constant).any():  # their masks are all equal: one run per image serves them all
            empty = score(model(torch.zeros_like(inputs)), torch.arange(len(inputs), device=inputs.device))
            scores = torch.where(chosen & constant, empty[:, None].to(scores), scores)
        return activations, scores.softmax(1)
