"""Owen values of pixels, for many images at once."""

import logging
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from sightline._core.checks import check_choice, check_count, check_positive
from sightline._core.internal_batches import InternalBatches
from sightline._core.tensors import check_finite, check_images
from sightline.attributions.owen.expansion import TOGETHER, expand
from sightline.attributions.owen.game import Game, Output, explained_score
from sightline.attributions.owen.maskers import Masker, check_masker, masked_inputs
from sightline.attributions.owen.partition import partition_of
from sightline.inference.fastest import fastest
from sightline.network.input_spec import InputSpec, to_inputs
from sightline.network.modes import evaluating
from sightline.network.tap import unwrap
from sightline.network.targets import Targets

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class OwenValues:
    """What every value of an image adds to a model's answer.

    Attributes:
        values: (B, C, H, W), or (B, K, C, H, W) of all classes; signed, and their sum is `full - base`.
        base: (B,) or (B, K), the explained function where everything is hidden.
        full: (B,) or (B, K), the explained function of the image.
        evaluations: (B,) int64, of the model, for each image.
    """

    values: Tensor
    base: Tensor
    full: Tensor
    evaluations: Tensor


def owen_values(
    model: nn.Module,
    images: Tensor,
    targets: Targets | Literal["all"] = None,
    *,
    input_spec: InputSpec | None = None,
    evaluations: int = 2000,
    tolerance: float | None = None,
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
        model: a classifier that returns logits (B, K), or an object with `.logits`; not changed.
        images: (B, C, H, W) float; in [0, 1] with an input spec, else as the model takes them.
        targets: what to explain: a class index, (B,) indices, None = the predicted class of each image, any scalar of the
            output (see `sl.targets`), or "all" = every class, by the same evaluations; a part then promises what it
            does for the class to which it matters most.
        input_spec: normalizes the images inside.
        evaluations: of the model for each image, at most as many as there are; they come in pairs, so an odd number is
            rounded up.
        tolerance: an image is finished once no part that could be split carries more than this share of the worth of all parts,
            by |worth| times weight: what splitting it could move between its pixels, as long as its halves do not oppose each
            other. None = all evaluations are spent.
        masker: what is seen instead of hidden pixels: `"blur"` = a Gaussian blur of the image; `"box_blur"` = the means of
            squares (shap's "blur(k,k)"); `"inpaint_telea"` or `"inpaint_ns"` = what OpenCV makes of the pixels around, for
            images in [0, 1]; a number, or one per channel; another image (C, H, W), such as the mean of a dataset. Numbers and
            images are in the units of `images`.
        blur: kernel of the blurs: None = 128 of 224 pixels; int = pixels; float = fraction of the shorter side. It is cut to
            the largest odd number below the side.
        output: what is explained of a class: its softmax `"probability"`, or its logit by `"logits"`. Targets that are scalars
            of the output are explained unchanged.
        internal_batch_size: the most images in one call of the model, after the one that finds what is predicted; None chooses.

    Raises:
        SightlineError: an argument is not as above, or the model's answers are NaN or infinite.

    References:
        Owen, "Values of Games with a Priori Unions" (Mathematical Economics and Game Theory 1977).
        Lundberg, Lee, "A Unified Approach to Interpreting Model Predictions" (NeurIPS 2017), Theorem 1, for the values of
            single pixels.
    """
    check_options(evaluations, output, internal_batch_size, tolerance)
    check_masker(masker, blur)
    check_images(images)
    model = unwrap(model)
    with torch.inference_mode(False), torch.no_grad(), evaluating(model), fastest(model, images):
        images = images.clone()  # the model may work in place, and what was made in inference mode cannot be written to
        inputs = to_inputs(images, input_spec)
        partition = partition_of(*images.shape[1:], images.device)
        masked = masked_inputs(images, inputs, input_spec, masker, blur)
        answer = model(inputs.clone())
        game = Game(model, explained_score(targets, answer, output), masked, partition)
        of = torch.arange(len(images), device=images.device)
        full = game.score(answer, of)
        root = torch.zeros(len(images), 1, dtype=torch.int64, device=images.device)
        batches = InternalBatches(internal_batch_size)
        base = batches.map(lambda a, b: game(root[a:b], root[a:b], of[a:b], b - a)[:, 0], len(images), images)
        for name, scores in (("the images", full), ("what is left when everything is hidden", base)):
            check_finite(scores, f"the model's answer to {name}", "are its weights finite?")
        pairs = min((evaluations - 1) // 2, partition.expansions)  # two evaluations were base and full

        spent = torch.zeros_like(of)

        def values(rows: int) -> Tensor:
            groups = -(-len(images) * 2 * TOGETHER // max(rows, 2 * TOGETHER))
            cuts = [len(images) * i // groups for i in range(groups + 1)]
            found = []
            for a, b in pairwise(cuts):
                shares, spent[a:b] = expand(game, base[a:b], full[a:b], pairs, a, rows, tolerance or 0.0)
                found.append(shares)
            return torch.cat(found)

        shares = batches.fit(values, images)
    asked = 2 + 2 * spent
    if tolerance is not None:
        logger.info("partition SHAP took %s of %s evaluations for the images", asked.tolist(), evaluations)
    if isinstance(targets, str):
        return OwenValues(shares, base, full, asked)
    return OwenValues(shares[:, 0], base[:, 0], full[:, 0], asked)


def check_options(
    evaluations: int, output: str, internal_batch_size: int | None, tolerance: float | None = None
) -> None:
    """Raise if `owen_values` cannot run with these options, for any image."""
    check_count(2, evaluations=evaluations)
    check_choice(Output, output=output)
    if tolerance is not None:
        check_positive(tolerance=tolerance)
    InternalBatches(internal_batch_size)
