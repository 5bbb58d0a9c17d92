"""From marks to a fitted head: features of draws, the choice of the network and of the head, cross-fitted answers."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sightline._core.progress import bar
from sightline.data.dataset import ImageDataset
from sightline.errors import SightlineError
from sightline.fixing.mending.draws import draws
from sightline.fixing.mending.fitting import Penalty, Rows, attend, cross_logits, fit_head, folds
from sightline.fixing.mending.trunk import Features, Trunk
from sightline.fixing.result import Candidate

FORWARDS = 1600  # augmented images that go through each network, about
DRAWS = (2, 8)  # least and most draws of each image
STRENGTHS = (3.0, 0.3, 0.03)
UNCHANGED = (1.0, 0.1, 0.0)  # weights of images as they are
FIRST = Penalty(0.3, 0.1)  # with which networks and ways to average are compared


@dataclass(frozen=True)
class Mended:
    """A mended model.

    Attributes:
        model: the network with its new head, in eval mode.
        chosen: how it was fitted.
        candidates: all that was tried.
        rows: of the chosen network.
        logits: (n, K) of each row by a head that has not seen the image.
    """

    model: nn.Module
    chosen: Candidate
    candidates: list[Candidate]
    rows: Rows
    logits: Tensor


def collect(trunk: Trunk, dataset: ImageDataset, size: int, seed: int, progress: bool = False) -> Rows:
    """Return the features of some augmented draws of a dataset, and of one draw without augmentation."""
    number = max(DRAWS[0], min(DRAWS[1], round(FORWARDS / (2 * len(dataset)))))
    parts = []
    with bar(progress, f"features of {trunk.name}", number + 1) as advance:
        for draw in range(number + 1):
            augmented = draw < number
            for each in draws(dataset, size, draw, seed, augment=augmented):
                parts.append(
                    (trunk.features(each.images), each.inside.to(torch.uint8), each.outside.to(torch.uint8), each.labels,
                     each.indices, each.changed, each.foreign, torch.full((len(each.labels),), augmented))
                )  # fmt: skip
            advance(1)
    features, *others = zip(*parts, strict=True)
    return Rows(Features.join(list(features)), *(torch.cat(column) for column in others))


def choose(
    trunks: Sequence[Trunk], rows: Sequence[Rows], judged: Tensor, labels: Tensor, classes: int, seed: int
) -> Mended:
    """Fit heads on several networks, and keep the best by cross-validation on marked images.

    The accuracy that decides is that of images whose background or region to avoid was exchanged with that of another class:
    validation that shares a shortcut would choose the shortcut. Of equal ones the first stays. The attention before pooling is
    fitted once, on all masks; it never sees a label.

    Args:
        trunks: the networks, the given model's own first.
        rows: of each network.
        judged: (N,) bool, the marked images.
        labels: (N,) of all images.
        classes: number of logits.
        seed: of the folds.

    Raises:
        SightlineError: a class has too few images.
    """
    fold_of = folds(labels, seed)
    tried: list[tuple[Candidate, int, Tensor]] = []
    inputs: dict[tuple[int, bool], Tensor] = {}
    attentions: dict[int, tuple[Tensor, Tensor]] = {}

    def judge(number: int, attention: bool, penalty: Penalty) -> None:
        some = rows[number]
        logits = cross_logits(inputs[number, attention], some, penalty, fold_of, classes)
        right = logits.argmax(1) == some.labels
        known = judged[some.indices] & some.augmented & ~logits.isnan().any(1)
        changed = known & (some.foreign if (known & some.foreign).any() else some.changed)
        if not changed.any():
            raise SightlineError(
                "no image is left to choose by: every class needs at least two images, and two images need a mask or a region "
                "to avoid; mark more images"
            )
        accuracy, unchanged = (right[part].double().mean().item() for part in (changed, known & ~some.changed))
        way = Candidate(trunks[number].name, attention, penalty.strength, penalty.unchanged, accuracy, unchanged)
        tried.append((way, number, logits))

    for number, (trunk, some) in enumerate(zip(trunks, rows, strict=True)):
        inputs[number, False] = some.features.inputs
        judge(number, False, FIRST)
        if trunk.can_attend and some.inside.any():
            attentions[number] = attend(some)
            inputs[number, True] = trunk.attended(some.features, *attentions[number])
            judge(number, True, FIRST)
    best, number, _ = max(tried, key=_value)
    for weight in UNCHANGED:
        if weight != FIRST.unchanged:
            judge(number, best.attention, Penalty(FIRST.strength, weight))
    best = max(tried, key=_value)[0]
    for strength in STRENGTHS:
        if strength != best.strength:
            judge(number, best.attention, Penalty(strength, best.weight))
    chosen, _, logits = max(tried, key=_value)
    augmented = rows[number].augmented.nonzero()[:, 0]
    penalty = Penalty(chosen.strength, chosen.weight)
    fitted = fit_head(inputs[number, chosen.attention][augmented], rows[number][augmented], penalty, classes)
    model = trunks[number].with_head(*fitted, attentions.get(number) if chosen.attention else None)
    return Mended(model, chosen, [each[0] for each in tried], rows[number], logits)


def _value(tried: tuple[Candidate, int, Tensor]) -> tuple[float, float]:
    return tried[0].accuracy, tried[0].unchanged
