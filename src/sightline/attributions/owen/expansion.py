"""The order in which parts of an image are split, and the values that result."""

import torch
from torch import Tensor

from sightline.attributions.owen.game import Game

TOGETHER = 5  # expansions of an image before the next best are chosen, of two evaluations each: shap's batch of 10


def expand(
    game: Game, base: Tensor, full: Tensor, expansions: int, first: int, rows: int, tolerance: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Compute the values (n, K, C, H, W) of n images from number `first`, all advancing together, and their expansions (n,).

    Args:
        game: of all images.
        base: (n, K) with everything hidden.
        full: (n, K) with everything shown.
        expansions: of each image; no more than there are.
        first: which of the game's images the first one is.
        rows: the most images in one call of the model.
        tolerance: a part is not split whose |worth| times weight is at most this share of the sum over all parts.
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
    everyone = torch.arange(count, device=device)
    running, image = everyone, everyone[:, None]
    spent_by = torch.zeros(count, 1, dtype=torch.int64, device=device)
    most = 0  # spent by any image: fewer where only leaves were left for a while
    while most < expansions or bool((spent_by[running] < expansions).any()):
        filled = min(slots, 1 + 3 * most)
        promised, chosen = promise[running, :filled].topk(min(TOGETHER, filled))
        rank = torch.arange(chosen.shape[1], device=device)
        spent = spent_by[running]
        valid = (promised >= 0) & (spent + rank < expansions)
        if tolerance > 0 and most:
            weight = tree.weight[part[running, :filled]]
            carried = (worth[1, running, :filled] - worth[0, running, :filled]).abs().amax(2) * weight
            valid &= promised > tolerance * carried.sum(1, keepdim=True)
            unfinished = valid.any(1)
            running, chosen, valid, spent = (each[unfinished] for each in (running, chosen, valid, spent))
            if not len(running):
                break
            image = running[:, None]

        parent, context = part[image, chosen], on[image, chosen]
        left, right = tree.halves[parent].unbind(-1)
        other = context | tree.bit[parent]  # what a half sees when the other half is shown
        without, whole = worth[:, image, chosen]
        either = game(torch.cat([right, left], 1), torch.cat([other, other], 1), first + running, rows)
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
        spent_by[running] = spent + valid.sum(1, keepdim=True)
        most += chosen.shape[1]
    part, worth = part[:, :-1], worth[:, :, :-1]
    total = base.new_zeros(count, len(tree.code), classes)
    share = (worth[1] - worth[0]) * tree.weight[part][..., None]
    total.scatter_add_(1, part[..., None].expand_as(share), share)
    values = tree.lowered(total).transpose(1, 2).unflatten(2, (len(tree.channels), *tree.pixels.shape))
    return values, spent_by[:, 0]
