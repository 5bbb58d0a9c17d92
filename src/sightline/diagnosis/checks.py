"""What a model answers when the object or its background is changed, image by image."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor, nn

from sightline._core.progress import bar
from sightline._core.seeding import generator
from sightline._core.shared_work import processes
from sightline.data.batch import Batch
from sightline.metrics import BackgroundNoiseAccuracy, ForegroundNoiseAccuracy, Observation, Scorer, correct
from sightline.network.input_spec import InputSpec
from sightline.regions.backgrounds import paint_over

GREY = 0.5  # a colour that says nothing of the image, unlike its mean


@dataclass(frozen=True)
class Answers:
    """What a model answers to changed images; NaN for an image without object or background, or without a partner.

    Attributes:
        predicted: (n,) int64, the answer to the unchanged image.
        confidence: (n,) probability of this answer.
        probability: (n,) probability of the true class.
        hits: what was changed -> (n,) 1 where the answer is right, else 0; under noise the mean over its levels.
        prediction_kept: (n,) 1 where the background swap keeps the prediction, else 0; NaN where the predictions for the
            two unchanged images are equal.
        prediction_follows_background: (n,) 1 where the swap brings the prediction for the image that gave the background.
        lean: (n,) how much of the answer's probability goes with the background, in [-0.5, 1]: the mean of what is lost when
            the background is swapped and of what the background alone gets.
        partners: (n,) int64, the place of the image whose background each one gets; -1 = none.
        swapped: (n,) int64, the answer with the other background; -1 = none.
        alone: (n,) int64, the answer to the background alone; -1 = none.
    """

    predicted: Tensor
    confidence: Tensor
    probability: Tensor
    hits: dict[str, Tensor]
    prediction_kept: Tensor
    prediction_follows_background: Tensor
    lean: Tensor
    partners: Tensor
    swapped: Tensor
    alone: Tensor


def greyed_background(images: Tensor, regions: Tensor) -> Tensor:
    """Images (B, C, H, W) with grey where the regions (B, H, W) are 0."""
    return torch.where((regions != 0)[:, None], images, GREY)


def background_alone(images: Tensor, regions: Tensor) -> Tensor:
    """Images (B, C, H, W) whose objects, where the regions (B, H, W) are not 0, are painted over from their surroundings."""
    return paint_over(images, (regions != 0)[:, None].to(images.dtype))


def swapped_background(images: Tensor, regions: Tensor, others: Tensor, other_regions: Tensor) -> Tensor:
    """Images (B, C, H, W) with the backgrounds of others, whose own objects are painted over."""
    return torch.where((regions != 0)[:, None], images, background_alone(others, other_regions))


def draw_partners(labels: Tensor, usable: Tensor, indices: Tensor, seed: int = 0, same_class: bool = False) -> Tensor:
    """For each usable image another one at random, keyed by its place in the data set.

    It is of another class if there is any, or of the same class alone.

    Returns:
        (n,) int64 rows; -1 for an image that is not usable or has no such other.
    """
    partners = torch.full_like(labels, -1)
    rows = usable.nonzero().flatten()
    for row in rows.tolist():
        siblings = rows[(labels[rows] == labels[row]) & (rows != row)]
        others = siblings if same_class else rows[labels[rows] != labels[row]]
        others = others if len(others) else siblings
        if len(others):
            draw = generator(seed, int(indices[row]), "sibling" if same_class else "partner")
            partners[row] = others[int(torch.randint(len(others), (), generator=draw))]
    return partners


def ask(
    model: nn.Module,
    batches: Sequence[Batch],
    *,
    input_spec: InputSpec | None,
    seed: int = 0,
    progress: bool = False,
) -> Answers:
    """Ask a model about images with their objects and backgrounds changed.

    Args:
        model: a classifier that returns logits (B, K).
        batches: on the CPU, with masks, `has_mask` for those with object and background, and indices.
        input_spec: normalises images in [0, 1].
        seed: of the noise and of who gets whose background.
        progress: show a bar.
    """
    scorer = Scorer(model, input_spec)
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    whole = {name: torch.cat([getattr(b, name) for b in batches]) for name in ("images", "labels", "masks", "has_mask")}
    indices = torch.cat([batch.indices for batch in batches if batch.indices is not None])
    partners = draw_partners(whole["labels"], whole["has_mask"], indices, seed)
    noisy = {
        "background noised": BackgroundNoiseAccuracy(model, seed=seed, input_spec=input_spec),
        "object noised": ForegroundNoiseAccuracy(model, seed=seed, input_spec=input_spec),
    }
    starts = accumulate(map(len, batches), initial=0)

    def answers_of(numbered: tuple[int, Batch]) -> dict[str, Tensor]:
        place, batch = numbered[0], numbered[1].to(device, non_blocking=True)
        here = torch.arange(place, place + len(batch))
        regions = batch.masks
        assert regions is not None
        observation = Observation(
            images=batch.images, labels=batch.labels, masks=regions, has_mask=batch.has_mask, indices=batch.indices,
            scorer=scorer,
        )  # fmt: skip
        givers = partners[here].clamp(min=0)  # images without a partner are asked about as well, and not counted
        others, other_regions = (whole[name][givers].to(device) for name in ("images", "masks"))
        swapped = swapped_background(batch.images, regions, others, other_regions)
        found = {name: metric.compute_per_image(observation).float() for name, metric in noisy.items()}
        found["clean"] = scorer(batch.images)
        found["background greyed"] = scorer(greyed_background(batch.images, regions))
        found["background swapped"] = scorer(swapped)
        found["object removed"] = scorer(background_alone(batch.images, regions))
        advance(len(batch))
        return {name: values.cpu() for name, values in found.items()}

    group = processes()
    with bar(progress, "changing backgrounds", len(range(group.rank, len(indices), group.size))) as advance:
        parts = group.map(answers_of, list(zip(starts, batches)))

    scores = {name: torch.cat([part[name] for part in parts]) for name in parts[0] if name not in noisy}
    usable, paired = whole["has_mask"], partners >= 0
    hits = {name: correct(each, whole["labels"]) for name, each in scores.items()}
    hits |= {name: torch.cat([part[name] for part in parts]) for name in noisy}
    known = {name: paired if name == "background swapped" else usable for name in hits}
    hits = {name: torch.where(known[name], values, torch.nan) for name, values in hits.items()}
    predicted = scores["clean"].argmax(1)
    swapped, alone = scores["background swapped"].argmax(1), scores["object removed"].argmax(1)
    giver = predicted[partners.clamp(min=0)]
    telling = paired & (giver != predicted)
    before, after, rest = (
        scores[name].gather(1, predicted[:, None])[:, 0] for name in ("clean", "background swapped", "object removed")
    )
    return Answers(
        predicted=predicted,
        confidence=before,
        probability=scores["clean"].gather(1, whole["labels"][:, None])[:, 0],
        hits=hits,
        prediction_kept=torch.where(telling, (swapped == predicted).float(), torch.nan),
        prediction_follows_background=torch.where(telling, (swapped == giver).float(), torch.nan),
        lean=torch.where(paired, (before - after + rest) / 2, torch.nan),
        partners=partners,
        swapped=torch.where(paired, swapped, -1),
        alone=torch.where(usable, alone, -1),
    )
