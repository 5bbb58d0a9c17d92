"""Partition SHAP: Owen values of pixels, for many images at once.

Owen values are Shapley values for parts that stick together: an image is halved again and again, and a half joins or leaves
only before or after the other one. An *item* of the work is a part with a context, which is what is shown of the rest of the
image; its worth is f(context and part) - f(context). *Expanding* an item evaluates the context with either half of the part,
and puts four items of half the weight in its place: each half, with the other half hidden and with it shown.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any, Literal, Protocol, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sightline._core.internal_batches import InternalBatches
from sightline._core.kernels import gaussian_blur, odd_kernel
from sightline._core.optional import requires_extra
from sightline._core.tensors import at_least_float32, check_images
from sightline.errors import SightlineError
from sightline.explainers.attribution import Sign, fitting
from sightline.explainers.base import Explainer, normalize_maps
from sightline.explainers.registry import EXPLAINERS
from sightline.network.input_spec import InputSpec
from sightline.network.layers import LayerSelection
from sightline.network.tap import evaluating, logits_of, unwrap
from sightline.network.targets import Targets, resolve_score, resolve_targets

NamedMasker = Literal["blur", "box_blur", "inpaint_telea", "inpaint_ns"]
Masker = NamedMasker | float | Sequence[float] | Tensor
Output = Literal["probability", "logits"]

BLUR = 128 / 224  # shap's examples blur with 128 of 224 pixels
TOGETHER = 5  # expansions of an image before the next best are chosen, of two evaluations each: shap's batch of 10


@dataclass(frozen=True)
class OwenValues:
    """What every value of an image adds to a model's answer.

    Attributes:
        values: (B, C, H, W), or (B, K, C, H, W) of all classes; signed, and their sum is `full - base`.
        base: (B,) or (B, K), the explained function where everything is hidden.
        full: (B,) or (B, K), the explained function of the image.
    """

    values: Tensor
    base: Tensor
    full: Tensor


def owen_values(
    model: nn.Module,
    images: Tensor,
    targets: Targets | Literal["all"] = None,
    *,
    input_spec: InputSpec | None = None,
    evaluations: int = 2000,
    masker: Masker = "blur",
    blur: int | float | None = None,
    output: Output = "probability",
    internal_batch_size: int | None = None,
) -> OwenValues:
    """Owen values over the partition that halves the longer side of an image, as the `shap` package computes them.

    Of equal sides the height is halved, of an odd one the first half is the larger, and the channels of a pixel are halved
    last. The parts that promise most, by |worth| times weight, are expanded first, five at a time. What is not split when the
    evaluations are spent is shared equally by its pixels and channels.

    Args:
        model: a classifier that returns logits (B, K), or an object with `.logits`; left as it was.
        images: (B, C, H, W) float; in [0, 1] with an input spec, else as the model takes them.
        targets: what to explain: a class index, (B,) indices, None = the predicted class of each image, any scalar of the
            output (see `sl.targets`), or "all" = every class, by the same evaluations; a part then promises what it
            does for the class to which it matters most.
        input_spec: normalises the images inside.
        evaluations: of the model for each image, at most as many as there are; they come in pairs, so that an odd number is
            rounded up.
        masker: what is seen in place of hidden pixels: `"blur"` = a Gaussian blur of the image; `"box_blur"` = the means of
            squares (shap's "blur(k,k)"); `"inpaint_telea"` or `"inpaint_ns"` = what OpenCV makes of the pixels around, for
            images in [0, 1]; a number, or one a channel; another image (C, H, W), such as the mean of a data set. Numbers and
            images are in the units of `images`.
        blur: kernel of the blurs: None = 128 of 224 pixels; int = pixels; float = fraction of the shorter side. It is cut to
            the largest odd number below the side.
        output: what is explained of a class: its softmax `"probability"`, or its logit by `"logits"`. Targets that are scalars
            of the output are explained as they are.
        internal_batch_size: the most images in one call of the model, after the one that finds what is predicted; None chooses.

    Raises:
        SightlineError: an argument is not as above, or the model's answers are NaN or infinite.

    References:
        Owen, "Values of games with a priori unions", 1977; Lundberg and Lee, "A unified approach to interpreting model
        predictions", 2017.
    """
    check_options(evaluations, masker, output, internal_batch_size)
    check_images(images)
    model = unwrap(model)
    with torch.inference_mode(False), torch.no_grad(), evaluating(model):
        images = images.clone()  # the model may work in place, and what was made in inference mode cannot be written to
        inputs = images if input_spec is None else input_spec.normalize(images)
        partition = partition_of(*images.shape[1:], images.device)
        masked = _masked(images, inputs, input_spec, masker, blur)
        answer = model(inputs.clone())
        game = _Game(model, _score(targets, answer, output), masked, partition)
        full = game.score(answer, torch.arange(len(images), device=images.device))
        root = torch.zeros(len(images), 1, dtype=torch.int64, device=images.device)
        base = InternalBatches(internal_batch_size).map(
            lambda a, b: game(root[a:b], root[a:b], a, b - a)[:, 0], len(images), images
        )
        for name, scores in (("the images", full), ("what is left when everything is hidden", base)):
            if not torch.isfinite(scores).all():
                raise SightlineError(f"the model's answer to {name} is NaN or infinite; are its weights finite?")
        pairs = min((evaluations - 1) // 2, partition.expansions)  # two evaluations were base and full

        def values(rows: int) -> Tensor:
            groups = -(-len(images) * 2 * TOGETHER // max(rows, 2 * TOGETHER))
            cuts = [len(images) * i // groups for i in range(groups + 1)]
            return torch.cat([_expand(game, base[a:b], full[a:b], pairs, a, rows) for a, b in pairwise(cuts)])

        shares = fitting(values, internal_batch_size, images)
    if isinstance(targets, str):
        return OwenValues(shares, base, full)
    return OwenValues(shares[:, 0], base[:, 0], full[:, 0])


def check_options(evaluations: int, masker: Masker, output: str, internal_batch_size: int | None) -> None:
    """Refuse what `owen_values` cannot run with, whatever the images."""
    if evaluations < 2:
        raise SightlineError(f"evaluations is {evaluations}; expected at least 2, with all hidden and with all shown")
    if isinstance(masker, str) and masker not in get_args(NamedMasker):
        raise SightlineError(
            f"masker is {masker!r}; expected {', '.join(map(repr, get_args(NamedMasker)))}, a number, one a channel, "
            "or an image"
        )
    if output not in get_args(Output):
        raise SightlineError(f"output is {output!r}; expected 'probability' or 'logits'")
    InternalBatches(internal_batch_size)


@EXPLAINERS.register("partition_shap", differentiable=False, needs_gradient=False, needs_layer=False, pixel_space=True)
class PartitionSHAP(Explainer):
    """Partition SHAP: Owen values over the binary partition of the image (Lundberg and Lee 2017).

    Explains the softmax probability of the class; see `owen_values`, which also gives the values of all classes.

    Args:
        evaluations: of the model, for each image.
        masker: what is seen in place of hidden pixels.
        blur: kernel of the blurs.
        output: what is explained of a class, its `"probability"` or `"logits"`.
        sign: how values, summed over the colour channels, become a map: `"positive"` keeps what speaks for the class,
            `"absolute"` what speaks for or against it.
        raw: return the signed sums (B, H, W) themselves instead of maps in [0, 1].
        internal_batch_size: the most images in one call of the model; None chooses.
    """

    def __init__(
        self,
        evaluations: int = 2000,
        masker: Masker = "blur",
        blur: int | float | None = None,
        output: Output = "probability",
        sign: Sign = "positive",
        raw: bool = False,
        internal_batch_size: int | None = None,
    ) -> None:
        check_options(evaluations, masker, output, internal_batch_size)
        odd_kernel(blur, 224, BLUR)  # refuses what is no kernel now, not after minutes
        if sign not in get_args(Sign):
            raise SightlineError(f"sign is {sign!r}; accepted are 'positive' and 'absolute'")
        self.evaluations, self.masker, self.blur, self.output = evaluations, masker, blur, output
        self.sign, self.raw, self.internal_batch_size = sign, raw, internal_batch_size

    def explain_images(
        self, model: nn.Module, images: Tensor, targets: Targets, layer: LayerSelection, input_spec: InputSpec | None
    ) -> Tensor:
        """Maps (B, H, W), in [0, 1] unless `raw`."""
        result = owen_values(
            model, images, targets, input_spec=input_spec, evaluations=self.evaluations, masker=self.masker,
            blur=self.blur, output=self.output, internal_batch_size=self.internal_batch_size,
        )  # fmt: skip
        values = result.values.sum(1)
        if self.raw:
            return values
        return normalize_maps(values.relu() if self.sign == "positive" else values.abs())

    def explain(self, model: nn.Module, inputs: Tensor, targets: Targets, layer: LayerSelection) -> Tensor:
        """Maps (B, H, W) for inputs as the model takes them."""
        return self.explain_images(model, inputs, targets, layer, None)


# ---- the partition ----


@dataclass(frozen=True)
class Partition:
    """The tree of an image's parts, numbered level by level from the whole image, 0, to single values, the leaves.

    A part's *code* is the way to it: a bit a split, from the highest, which is 1 for the second half. The codes of two parts
    first differ where the parts were separated. A context is a number `on` of as many bits, which says at each split on the way
    to a part whether the other half is shown. The lowest bits belong to splits of channels.

    Attributes:
        halves: (N, 2) the two halves of each part; 0 for a leaf.
        parent: (N,) what each part is a half of.
        code: (N,) int64, its further bits 0.
        bit: (N,) the bit by which the halves' codes differ; 0 for a leaf.
        size: (N,) number of values.
        weight: (N,) of each of a part's items: one half to the power of its depth.
        corner: (N,) the first pixel.
        levels: the first and last (excluded) part of each level.
        leaves: (C * H * W,) the leaf that each value is.
        pixels: (H, W) codes down to pixels, of as few bytes as they need.
        channels: (C,) codes within a pixel.
        channel_bits: the number of bits that channels take.
        expansions: how many there are in all.
    """

    halves: Tensor
    parent: Tensor
    code: Tensor
    bit: Tensor
    size: Tensor
    weight: Tensor
    corner: Tensor
    levels: list[tuple[int, int]]
    leaves: Tensor
    pixels: Tensor
    channels: Tensor
    channel_bits: int
    expansions: int

    def shown(self, parts: Tensor, on: Tensor) -> Tensor:
        """Which values the contexts `on` (...) of `parts` (...) show: (..., C, H, W) bool."""
        code = self.code[parts]
        wide = tuple(self.pixels.shape)
        spatial = [(bits >> self.channel_bits).to(self.pixels.dtype)[..., None, None] for bits in (code, on)]
        shown = _separated_by(self.pixels ^ spatial[0], spatial[1])
        shown = shown[..., None, :, :].expand(*parts.shape, len(self.channels), *wide).flatten(-2).contiguous()
        # Parts of a pixel: the other channels of that pixel have each their own bit.
        corner = self.corner[parts]
        codes = (self.pixels.flatten()[corner].long() << self.channel_bits)[..., None] | self.channels
        bits = _separated_by(codes ^ code[..., None], on[..., None])
        where = corner[..., None, None].expand(*parts.shape, len(self.channels), 1)
        return shown.scatter_(-1, where, bits[..., None]).unflatten(-1, wide)

    def lowered(self, worths: Tensor) -> Tensor:
        """What each value gets (n, C * H * W, K) when parts hand what they are worth (n, N, K) to their halves, by size."""
        for start, stop in self.levels[1:]:
            parent = self.parent[start:stop]
            share = self.size[start:stop].to(worths.dtype) / self.size[parent]
            worths[:, start:stop] += worths[:, parent] * share[:, None]
        return worths[:, self.leaves]


def _separated_by(difference: Tensor, on: Tensor) -> Tensor:
    """Whether the highest bit of the difference is one of `on`."""
    return (difference & on) > (difference & ~on)


@lru_cache(maxsize=8)
def partition_of(channels: int, height: int, width: int, device: torch.device) -> Partition:
    """The partition of images (C, H, W)."""
    pixel_bits = (height - 1).bit_length() + (width - 1).bit_length()
    channel_bits = (channels - 1).bit_length()
    low, high = torch.zeros(1, 3, dtype=torch.int64), torch.tensor([[height, width, channels]])
    code, parent = torch.zeros(1, dtype=torch.int64), torch.zeros(1, dtype=torch.int64)
    splits = torch.zeros(1, 2, dtype=torch.int64)  # of the pixels and of the channels, on the way to a part
    columns: dict[str, list[Tensor]] = {}
    levels: list[tuple[int, int]] = []
    leaves = torch.empty(channels, height, width, dtype=torch.int64)
    start = 0
    while len(low):
        levels.append((start, start + len(low)))
        extent = high - low
        tall, wide, _ = extent.unbind(1)
        axis = torch.where((tall >= wide) & (tall > 1), 0, torch.where(wide > 1, 1, 2))
        size = extent.prod(1)
        inner = size > 1
        within = (axis == 2).long()
        ends = torch.tensor([pixel_bits + channel_bits - 1, channel_bits - 1])
        bit = torch.where(inner, 1 << (ends[within] - splits.gather(1, within[:, None])[:, 0]).clamp(min=0), 0)
        first = levels[-1][1] + 2 * (inner.cumsum(0) - 1)
        part = {
            "halves": torch.stack([first, first + 1], 1) * inner[:, None],
            "parent": parent,
            "code": code,
            "bit": bit,
            "size": size,
            "weight": torch.full((len(low),), 0.5 ** (len(levels) - 1)),
            "corner": low[:, 0] * width + low[:, 1],
        }
        for name, column in part.items():
            columns.setdefault(name, []).append(column)
        row, column, channel = low[~inner].unbind(1)
        leaves[channel, row, column] = start + (~inner).nonzero()[:, 0]

        parent = (start + inner.nonzero()).expand(-1, 2).flatten()
        start = levels[-1][1]
        low, high, code, bit, axis, splits = (t[inner] for t in (low, high, code, bit, axis[:, None], splits))
        middle = high.gather(1, axis) - (high - low).gather(1, axis) // 2
        low = torch.stack([low, low.scatter(1, axis, middle)], 1).flatten(0, 1)
        high = torch.stack([high.scatter(1, axis, middle), high], 1).flatten(0, 1)
        code = torch.stack([code, code | bit], 1).flatten()
        splits = splits.scatter_add(1, (axis == 2).long(), torch.ones_like(axis)).repeat_interleave(2, 0)
    nodes = {name: torch.cat(column) for name, column in columns.items()}
    codes = nodes["code"][leaves]
    pixels = (codes[0] >> channel_bits).to(torch.int16 if pixel_bits < 16 else torch.int32)
    expansions = int((1 / nodes["weight"].double())[nodes["bit"] > 0].sum())  # of a part at depth d there are 2^d items
    tensors = {
        "leaves": leaves.flatten(),
        "pixels": pixels,
        "channels": codes[:, 0, 0] & ((1 << channel_bits) - 1),
        **nodes,
    }
    return Partition(
        levels=levels, channel_bits=channel_bits, expansions=expansions, **{n: t.to(device) for n, t in tensors.items()}
    )


# ---- the explained function ----


def _score(targets: Targets | Literal["all"], answer: Any, output: Output) -> Callable[[Any, Tensor], Tensor]:
    """What gives scores (N, K) for the output for N inputs and the images they are made from; K = 1 but for all classes."""

    def explained(answer: Any) -> Tensor:
        logits = at_least_float32(logits_of(answer))
        return logits.softmax(1) if output == "probability" else logits

    if isinstance(targets, str):
        if targets != "all":
            raise SightlineError(f"targets is {targets!r}; expected class indices, None, a Target, a function or 'all'")
        return lambda answer, of: explained(answer)
    if targets is None or isinstance(targets, Tensor | int):
        classes = resolve_targets(targets, logits_of(answer))
        return lambda answer, of: explained(answer).gather(1, classes[of, None])
    score = resolve_score(targets, answer)
    return lambda answer, of: at_least_float32(score(answer, of))[:, None]


class _Masked(Protocol):
    """Inputs with parts hidden."""

    def __call__(self, shown: Tensor, images: slice) -> Tensor:
        """Inputs (n * e, C, H, W) for what is shown (n, e, C, H, W) of n images, e times."""


def _masked(
    images: Tensor, inputs: Tensor, input_spec: InputSpec | None, masker: Masker, blur: int | float | None
) -> _Masked:
    if isinstance(masker, str) and masker.startswith("inpaint"):
        return _Inpainted(images, input_spec, masker)
    if isinstance(masker, str):
        kernel = odd_kernel(blur, min(images.shape[-2:]), BLUR)
        if kernel < 3:
            raise SightlineError(
                f"blur is {blur}, a kernel of {max(kernel, 0)} for images {tuple(images.shape[-2:])}: nothing would be hidden"
            )
        background = gaussian_blur(images, kernel) if masker == "blur" else _box(images, kernel)
    else:
        background = _constant(images, masker)
        low, high = torch.aminmax(background)
        if not torch.isfinite(background).all() or (input_spec is not None and (low < 0 or high > 1)):
            raise SightlineError(
                f"masker ranges over [{low:.3g}, {high:.3g}]; expected finite values in the units of the images, "
                "which are [0, 1] with an input spec"
            )
    hidden = background if input_spec is None else input_spec.normalize(background)
    return lambda shown, which: torch.where(shown, inputs[which, None], hidden[which, None]).flatten(0, 1)


def _box(images: Tensor, kernel: int) -> Tensor:
    padded = F.pad(images, [kernel // 2] * 4, mode="reflect")
    return F.avg_pool2d(F.avg_pool2d(padded, (kernel, 1), 1), (1, kernel), 1)


def _constant(images: Tensor, masker: float | Sequence[float] | Tensor) -> Tensor:
    """A number, one a channel or an image, as a tensor like the images."""
    try:
        value = torch.as_tensor(masker, dtype=images.dtype, device=images.device)
        return (value[:, None, None] if value.ndim == 1 else value).expand_as(images)
    except (TypeError, ValueError, RuntimeError):
        came = f"shape {tuple(masker.shape)}" if isinstance(masker, Tensor) else repr(masker)
        raise SightlineError(
            f"masker is {came}; expected a number, one a channel ({images.shape[1]}), or an image {tuple(images.shape[1:])}"
        ) from None


class _Inpainted:
    """Hidden pixels are painted by OpenCV from those around, on 8-bit pixels; where all are hidden, with the mean colour.

    A pixel is hidden if any channel of it is. This is what shap does.
    """

    def __init__(self, images: Tensor, input_spec: InputSpec | None, method: str) -> None:
        with requires_extra("masks", f"masker {method!r}"):
            import cv2

        low, high = torch.aminmax(images)
        if low < 0 or high > 1 or images.shape[1] not in (1, 3):
            raise SightlineError(
                f"masker {method!r} paints grey or colour images in [0, 1]; these have {images.shape[1]} channels and range "
                f"over [{low:.3g}, {high:.3g}]"
            )
        self.cv2 = cv2
        self.flag = cv2.INPAINT_TELEA if method == "inpaint_telea" else cv2.INPAINT_NS
        self.means = images.mean((2, 3), keepdim=True)
        self.pixels = (images * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().cpu().numpy()
        self.input_spec = input_spec

    def __call__(self, shown: Tensor, images: slice) -> Tensor:
        hidden = ~shown.all(2)
        painted = [
            torch.from_numpy(self.cv2.inpaint(pixels, mask, 3, self.flag))
            for pixels, masks in zip(self.pixels[images], hidden.to(torch.uint8).cpu().numpy())
            for mask in masks
        ]
        size = hidden.shape[-2:]
        filled = (
            torch.stack(painted).view(*hidden.shape, -1).to(self.means.device, self.means.dtype).movedim(-1, 2) / 255
        )
        empty = hidden.flatten(2).all(2)[..., None, None, None]
        result = torch.where(empty, self.means[images, None].expand(-1, -1, -1, *size), filled).flatten(0, 1)
        return result if self.input_spec is None else self.input_spec.normalize(result)


@dataclass(frozen=True)
class _Game:
    """The explained function of images of which only some parts are shown."""

    model: nn.Module
    score: Callable[[Any, Tensor], Tensor]
    masked: _Masked
    partition: Partition

    def __call__(self, parts: Tensor, on: Tensor, first: int, rows: int) -> Tensor:
        """Scores (n, e, K) of the contexts `on` (n, e) of `parts`, for n images from number `first`, `rows` at a time."""
        many = parts.shape[1]
        down, across = max(1, rows // many), min(many, rows)
        scores = []
        for i in range(0, len(parts), down):
            which = slice(first + i, first + min(i + down, len(parts)))
            of = torch.arange(which.start, which.stop, device=parts.device)[:, None]
            row = []
            for j in range(0, many, across):
                part = parts[i : i + down, j : j + across]
                shown = self.partition.shown(part, on[i : i + down, j : j + across])
                answer = self.model(self.masked(shown, which))
                row.append(self.score(answer, of.expand_as(part).flatten()).unflatten(0, part.shape))
            scores.append(torch.cat(row, 1))
        return torch.cat(scores)


def _expand(game: _Game, base: Tensor, full: Tensor, expansions: int, first: int, rows: int) -> Tensor:
    """The values (n, K, C, H, W) of n images from number `first`, all advancing together.

    Args:
        game: of all images.
        base: (n, K) with everything hidden.
        full: (n, K) with everything shown.
        expansions: of each image; no more than there are.
        first: which of the game's images the first one is.
        rows: the most images in one call of the model.
    """
    tree = game.partition
    (count, classes), device = base.shape, base.device
    # An expanded item leaves its slot to the first of its four, and the others go behind; the last slot is for what is dropped.
    slots = 1 + 3 * expansions
    part = torch.zeros(count, slots + 1, dtype=torch.int64, device=device)
    on = torch.zeros_like(part)
    worth = base.new_zeros(2, count, slots + 1, classes)  # without the part, and with it
    worth[:, :, 0] = torch.stack([base, full])
    promise = base.new_full((count, slots + 1), -1)
    promise[:, 0] = 0
    image = torch.arange(count, device=device)[:, None]
    spent = torch.zeros(count, 1, dtype=torch.int64, device=device)
    most = 0  # spent by any image: fewer where nothing but leaves was left for a while
    while most < expansions or bool((spent < expansions).any()):
        filled = min(slots, 1 + 3 * most)
        promised, chosen = promise[:, :filled].topk(min(TOGETHER, filled))
        rank = torch.arange(chosen.shape[1], device=device)
        valid = (promised >= 0) & (spent + rank < expansions)

        parent, context = part[image, chosen], on[image, chosen]
        left, right = tree.halves[parent].unbind(-1)
        other = context | tree.bit[parent]  # what a half sees when the other half is shown
        without, whole = worth[:, image, chosen]
        either = game(torch.cat([right, left], 1), torch.cat([other, other], 1), first, rows)
        with_left, with_right = either.chunk(2, 1)

        behind = 1 + 3 * (spent + rank)
        slot = torch.cat([chosen, behind, behind + 1, behind + 2], 1)
        slot = torch.where(valid.repeat(1, 4), slot, slots)
        new = torch.cat([left, right, left, right], 1)
        low = torch.cat([without, without, with_right, with_left], 1)
        high = torch.cat([with_left, with_right, whole, whole], 1)
        part[image, slot] = new
        on[image, slot] = torch.cat([context, context, other, other], 1)
        worth[:, image, slot] = torch.stack([low, high])
        gain = (high - low).abs().amax(2) * tree.weight[new]
        promise[image, slot] = torch.where(tree.bit[new] > 0, gain, -1)
        spent = spent + valid.sum(1, keepdim=True)
        most += chosen.shape[1]
    part, worth = part[:, :-1], worth[:, :, :-1]
    total = base.new_zeros(count, len(tree.code), classes)
    share = (worth[1] - worth[0]) * tree.weight[part][..., None]
    total.scatter_add_(1, part[..., None].expand_as(share), share)
    return tree.lowered(total).transpose(1, 2).unflatten(2, (len(tree.channels), *tree.pixels.shape))
