"""From marks to a fitted head: the choice of the network and of the head, and cross-fitted answers."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from sightline._core.progress import bar
from sightline.errors import SightlineError
from sightline.fixing.mending.bank import Bank, Pass
from sightline.fixing.mending.fitting import Head, Penalty, Rows, attend, cross_logits, fit_head, folds
from sightline.fixing.mending.marked import MarkedImages
from sightline.fixing.result import Candidate

FORWARDS = 1600  # augmented images that go through the chosen network, about
DRAWS = (2, 8)  # least and most augmented passes
STILL: Pass = (False, 0)  # the pass that is not augmented: the centre of each image
SCREENING: tuple[Pass, ...] = ((True, 0), STILL)  # passes on which networks are compared
STRENGTHS = (3.0, 0.3, 0.03)
UNCHANGED = (1.0, 0.1, 0.0)  # weights of unchanged images
FIRST = Penalty(0.3, 0.1)  # with which networks and ways to average are compared


@dataclass(frozen=True)
class Mended:
    """A mended model.

    Attributes:
        model: the network with its new head, in eval mode.
        chosen: how it was fitted.
        candidates: all that was tried.
        still: the rows of the given network on the centre of each image, with the logits of the given model.
        logits: (n, K) of these rows by the chosen network and heads that have not seen the image.
    """

    model: nn.Module
    chosen: Candidate
    candidates: list[Candidate]
    still: Rows
    logits: Tensor


@dataclass
class _Judge:
    """Cross-validation of heads on the rows of one network.

    The accuracy that decides is that of marked images whose background or region to avoid was exchanged with that of another
    class: validation that shares a shortcut would choose the shortcut.
    """

    bank: Bank
    number: int
    rows: Rows
    judged: Tensor
    fold_of: Tensor
    classes: int

    def __post_init__(self) -> None:
        trunk = self.bank.trunks[self.number]
        self.inputs = {False: self.rows.features.inputs}
        self.attention: Head | None = None
        self.heads: dict[bool, dict[int, Head]] = {False: {}, True: {}}
        if trunk.can_attend and self.rows.inside.any():
            self.attention = attend(self.rows)
            self.inputs[True] = trunk.attended(self.rows.features, *self.attention)

    def __call__(self, attention: bool, penalty: Penalty) -> tuple[Candidate, Tensor]:
        """Return a candidate with the logits of all rows."""
        rows, heads = self.rows, self.heads[attention]
        logits = cross_logits(self.inputs[attention], rows, penalty, self.fold_of, self.classes, heads)
        right = logits.argmax(1) == rows.labels
        known = self.judged[rows.indices] & ~logits.isnan().any(1)
        changed = known & (rows.foreign if (known & rows.foreign).any() else rows.changed)
        if not changed.any():
            raise SightlineError(
                "no image is left to choose by: every class needs at least two images, and two images need a mask or a region "
                "to avoid; mark more images"
            )
        accuracy, unchanged = (right[part].double().mean().item() for part in (changed, known & ~rows.changed))
        name = self.bank.trunks[self.number].name
        return Candidate(name, attention, penalty.strength, penalty.unchanged, accuracy, unchanged), logits

    def fit(self, candidate: Candidate) -> nn.Module:
        """Return the network with the candidate's head, fitted on all augmented rows."""
        augmented = self.rows.augmented.nonzero()[:, 0]
        inputs, penalty = self.inputs[candidate.attention][augmented], Penalty(candidate.strength, candidate.weight)
        start = next(iter(self.heads[candidate.attention].values()), None)
        head = fit_head(inputs, self.rows[augmented], penalty, self.classes, start)
        return self.bank.trunks[self.number].with_head(*head, self.attention if candidate.attention else None)


def choose(bank: Bank, marked: MarkedImages, judged: Tensor, classes: int, seed: int, progress: bool = False) -> Mended:
    """Fit heads on several networks, and keep the best by cross-validation on marked images.

    Networks are compared on few passes; the best one gets more. Of equal ones the first stays. The attention before pooling
    is fitted once for each network, on all masks; it never sees a label.

    Args:
        bank: features of the images, by the given model's own network first.
        marked: the images with what is known of them.
        judged: (N,) bool, the marked images.
        classes: number of logits.
        seed: of the folds.
        progress: show bars.

    Raises:
        SightlineError: a class has too few images.
    """
    labels = bank.images.labels
    draws = max(DRAWS[0], min(DRAWS[1], round(FORWARDS / (2 * len(labels)))))
    passes = [*((True, number) for number in range(draws)), STILL]
    fold_of = folds(labels, seed)

    def judge(number: int, some: Sequence[Pass]) -> _Judge:
        with bar(progress, f"features of {bank.trunks[number].name}", len(some)) as advance:
            rows = bank.rows(number, marked, some, advance)
        return _Judge(bank, number, rows, judged, fold_of, classes)

    screened: list[tuple[Candidate, int]] = []
    if len(bank.trunks) > 1:
        for number in range(len(bank.trunks)):
            trial = judge(number, SCREENING)
            screened += [(trial(attention, FIRST)[0], number) for attention in trial.inputs]
    number = max(screened, key=lambda each: _value(each[0]))[1] if screened else 0
    trial = judge(number, passes)
    tried = [trial(attention, FIRST) for attention in trial.inputs]
    best = max(tried, key=lambda each: _value(each[0]))[0]
    tried += [trial(best.attention, Penalty(FIRST.strength, w)) for w in UNCHANGED if w != FIRST.unchanged]
    best = max(tried, key=lambda each: _value(each[0]))[0]
    tried += [trial(best.attention, Penalty(s, best.weight)) for s in STRENGTHS if s != best.strength]
    chosen, logits = max(tried, key=lambda each: _value(each[0]))
    still = bank.rows(0, marked, [STILL], lambda count: None)
    candidates = [*(each[0] for each in screened), *(each[0] for each in tried)]
    return Mended(trial.fit(chosen), chosen, candidates, still, logits[~trial.rows.augmented])


def _value(candidate: Candidate) -> tuple[float, float]:
    return candidate.accuracy, candidate.unchanged
