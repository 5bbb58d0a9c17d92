"""Is the model given its images as in training? The usual alternatives are tried on a few images, by how often it is right."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.stats import binomtest
from torch import Tensor, nn

from sightline.data.dataset import ImageDataset
from sightline.data.transforms import Fit, eval_transform
from sightline.diagnosis.checks import greyed_background
from sightline.localization.annotation import MIN_IMAGES, Annotated
from sightline.metrics import Scorer, correct
from sightline.network.input_spec import InputSpec
from sightline.network.tap import unwrap
from sightline.statistics.bootstrap import Array
from sightline.statistics.pairs import LEVEL, paired

IMAGES = 120  # that are looked at
MIN_GAIN = 0.05  # a smaller gain of accuracy by other colors is no error of preprocessing
MIN_GAIN_BY_SIZE = (
    0.10  # the same by another size or crop, which can help a model that was trained with the size of its use
)
ALIKE = 0.02  # alternatives with accuracies closer than this are distinguished by the probability of the true class
CROPPED = 0.875  # share of the side that ImageNet's customary crop keeps
BELOW_CHANCE = 1e-3  # p-value of an accuracy that something in the images must mislead
GIVEN = "as given"
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@dataclass(frozen=True)
class Preprocessing:
    """How images become what a model takes.

    Attributes:
        name: in words.
        spec: normalization, in the order of the channels that the model gets, and size.
        bgr: whether the model gets blue first.
        fit: how an image is brought to the size.
    """

    name: str
    spec: InputSpec
    bgr: bool = False
    fit: Fit = "crop"

    def prepare(self, images: Tensor) -> Tensor:
        """Return images (B, 3, H, W) in [0, 1] as the model takes them."""
        return self.spec.normalize(images.flip(1) if self.bgr else images)

    @property
    def input_spec(self) -> InputSpec:
        """The normalization of images with red first, for a model whose input `blue_first` turns."""
        if not self.bgr:
            return self.spec
        return replace(self.spec, mean=self.spec.mean[::-1], std=self.spec.std[::-1])


@dataclass(frozen=True)
class Trial:
    """One alternative.

    Attributes:
        name: in words.
        accuracy: with it.
        reference: accuracy with what it was compared with: as given, or with the best colors.
        p: p-value of the paired difference, times the number of alternatives that were tried; at most 1.
        better: whether it is clearly better.
    """

    name: str
    accuracy: float
    reference: float
    p: float
    better: bool


@dataclass(frozen=True)
class PreprocessingCheck:
    """What came of trying other ways to prepare the images.

    Attributes:
        given: accuracy with the images unchanged.
        images: how many images were looked at.
        trials: every alternative.
        best: the one that is clearly better; None = there is none.
        accuracy: with the best one, else as given.
        note: what else is to be said; empty = nothing.
    """

    given: float
    images: int
    trials: list[Trial]
    best: Preprocessing | None
    accuracy: float
    note: str = ""


def color_alternatives(given: InputSpec) -> list[Preprocessing]:
    """Return the usual other normalizations and orders of the channels."""
    mean, std = np.array(given.mean), np.array(given.std)
    ones = (1.0,) * 3
    caffe = tuple(255 * value for value in (0.406, 0.456, 0.485))
    found = {
        "the mean and standard deviation of ImageNet": replace(given, mean=IMAGENET[0], std=IMAGENET[1]),
        "mean 0.5 and standard deviation 0.5": replace(given, mean=(0.5,) * 3, std=(0.5,) * 3),
        "values in 0 .. 1, not normalized": replace(given, mean=(0.0,) * 3, std=ones),
        "values in 0 .. 255, not normalized": replace(given, mean=(0.0,) * 3, std=(1 / 255,) * 3),
        "the given normalization applied twice": replace(
            given, mean=tuple((mean + mean * std).tolist()), std=tuple((std * std).tolist())
        ),
    }
    plain = [Preprocessing(name, spec) for name, spec in found.items() if spec != given]
    return [
        *plain,
        Preprocessing("channels in the order blue, green, red", given, bgr=True),
        Preprocessing(
            "blue, green, red in 0 .. 255 minus the mean of ImageNet",
            replace(given, mean=tuple(value / 255 for value in caffe), std=(1 / 255,) * 3),
            bgr=True,
        ),
    ]


def shape_alternatives(given: Preprocessing) -> list[Preprocessing]:
    """Return the usual other crops and sizes."""
    side = given.spec.size[0]
    sides = sorted({max(8, side // 2), 2 * side, 224} - {side})
    before = "" if given.name == GIVEN else f"{given.name}, and "
    return [
        replace(given, name=f"{before}the center of an image that is resized to 1.14 times the size", fit="center"),
        replace(given, name=f"{before}the whole image, squeezed into a square", fit="squeeze"),
        *(
            replace(given, name=f"{before}a size of {each} px", spec=replace(given.spec, size=(each, each)))
            for each in sides
        ),
    ]


def check_preprocessing(
    model: nn.Module, data: ImageDataset | None, shown: Annotated, given: InputSpec
) -> PreprocessingCheck:
    """Try the usual alternatives, and find one that is clearly better.

    An alternative is clearly better if more answers are right with it, by a paired permutation test corrected for the number
    of alternatives, by at least 5 points (10 for sizes and crops), and significantly above chance. It must be better than
    images with a gray margin and with a gray background, too: otherwise it helps because it hides what misleads. Where the
    accuracy as given is significantly below chance and gray helps, the images themselves mislead, and no alternative is chosen.

    Args:
        model: a classifier that returns logits (B, K).
        data: where the images come from; None = other sizes and crops cannot be tried.
        shown: the images of the diagnosis.
        given: how the images are normalized.
    """
    rows = slice(0, IMAGES)
    labels = shown.labels[rows]
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    scorer = Scorer(model)

    def answers(how: Preprocessing, images: Tensor) -> tuple[Array, float] | None:
        """Whether the model is right on each image, and its mean log probability of the truth; None where it does not run."""
        try:
            scores = torch.cat([scorer(how.prepare(some.to(device))).cpu() for some in images.split(32)])
        except Exception:
            return None
        truth = scores.gather(1, labels[:, None]).clamp_min(1e-12).log().mean()
        return correct(scores, labels).double().numpy(), float(truth)

    start = Preprocessing(GIVEN, given)
    images = shown.images[rows]
    first = answers(start, images)
    if first is None or len(labels) < MIN_IMAGES or len(given.mean) != 3:
        return PreprocessingCheck(float("nan") if first is None else float(first[0].mean()), len(labels), [], None, 0.0)
    hits, before = first[0], float(first[0].mean())
    chance = float(labels.bincount().max()) / len(labels)
    if before > 1 - MIN_GAIN:
        return PreprocessingCheck(before, len(labels), [], None, before)

    colors, seen = color_alternatives(given), _Shapes(data, shown.indices[rows].tolist())
    tried = len(colors) + (0 if data is None else len(shape_alternatives(start)))
    gray = torch.where(shown.usable[rows, None, None], shown.regions[rows], 1)
    hidden = [answers(start, changed) for changed in (gray_margin(images), greyed_background(images, gray))]
    guards = [found[0] for found in hidden if found is not None]
    search = _Search(answers, chance, tried, guards)
    best = search.run(start, hits, colors, lambda how: images, MIN_GAIN)
    if data is not None:
        reference = search.hits.get(best.name, hits)
        best = search.run(best, reference, shape_alternatives(best), seen, MIN_GAIN_BY_SIZE)
    chosen = None if best.name == GIVEN else best
    note = ""
    below = binomtest(int(hits.sum()), len(hits), chance, "less").pvalue < BELOW_CHANCE
    if chosen is not None and below and min(_p_better(guard, hits) for guard in guards) < LEVEL:
        note = (
            f"With {chosen.name} the accuracy would be {search.hits[chosen.name].mean():.0%}. With the preprocessing that was "
            "given, the accuracy is below chance, and a gray margin or background raises it. So the images mislead the "
            "model, and the preprocessing is not changed."
        )
        chosen = None
    accuracy = before if chosen is None else float(search.hits[chosen.name].mean())
    return PreprocessingCheck(before, len(labels), search.trials, chosen, accuracy, note)


def gray_margin(images: Tensor) -> Tensor:
    """Return images (B, C, H, W) with gray where the customary crop would cut."""
    height, width = images.shape[-2:]
    kept = torch.zeros(height, width, dtype=torch.bool)
    y, x = (round(side * (1 - CROPPED) / 2) for side in (height, width))
    kept[y : height - y, x : width - x] = True
    return torch.where(kept, images, 0.5)


@contextmanager
def blue_first(model: nn.Module, turned: bool) -> Iterator[None]:
    """Within it, a model gets the channels of its input in the reverse order, if they are to be turned."""
    if not turned:
        yield
        return
    with unwrap(model).register_forward_pre_hook(lambda module, given: (given[0].flip(1), *given[1:])):
        yield


class _Shapes:
    """Images of a data set in other sizes and crops."""

    def __init__(self, data: ImageDataset | None, places: Sequence[int]) -> None:
        self.data, self.places = data, places

    def __call__(self, how: Preprocessing) -> Tensor:
        assert self.data is not None
        transform = eval_transform(how.spec.size[0], how.fit)
        return torch.stack([transform(self.data[place].image).as_subclass(Tensor) for place in self.places])


class _Search:
    """Alternatives compared with a reference, with one correction for all of them."""

    def __init__(
        self,
        answers: Callable[[Preprocessing, Tensor], tuple[Array, float] | None],
        chance: float,
        tried: int,
        guards: Sequence[Array],
    ) -> None:
        self.answers, self.chance, self.tried, self.guards = answers, chance, tried, guards
        self.trials: list[Trial] = []
        self.hits: dict[str, Array] = {}

    def run(
        self,
        start: Preprocessing,
        reference: Array,
        alternatives: Sequence[Preprocessing],
        images: Callable[[Preprocessing], Tensor],
        least: float,
    ) -> Preprocessing:
        """Return the best of the alternatives that are clearly better than the reference, else the start."""
        better: list[tuple[float, float, Preprocessing]] = []
        for how in alternatives:
            found = self.answers(how, images(how))
            if found is None:
                continue
            hits, truth = found
            p = min(1.0, self.tried * max(_p_better(hits, other) for other in (reference, *self.guards)))
            above = binomtest(int(hits.sum()), len(hits), self.chance, "greater").pvalue < LEVEL
            is_better = p < LEVEL and above and hits.mean() - reference.mean() >= least
            self.trials.append(Trial(how.name, float(hits.mean()), float(reference.mean()), p, bool(is_better)))
            self.hits[how.name] = hits
            if is_better:
                better.append((float(hits.mean()), truth, how))
        top = max((accuracy for accuracy, _, _ in better), default=0.0)
        close = [each for each in better if each[0] >= top - ALIKE]
        return max(close, key=lambda each: each[1])[2] if close else start


def _p_better(hits: Array, other: Array) -> float:
    """Return the p-value of the difference of two paired columns; 1 if the first is not the better one."""
    test = paired(hits, other)
    return test.p if test is not None and test.difference > 0 else 1.0
