"""What frozen features tell: a logistic regression judged on images that it was not fitted to."""

from dataclasses import dataclass

import torch
from scipy.stats import binomtest
from torch import Tensor, nn

from sightline._core.seeding import generator
from sightline.heads import fit_linear
from sightline.network.features import DeepFeatures
from sightline.network.input_spec import InputSpec, to_inputs
from sightline.network.modes import evaluating

FOLDS = 5
STRENGTH = 0.1  # of the penalty
DIMENSIONS = 32  # principal components that are kept, so a fit takes milliseconds


@dataclass(frozen=True)
class Probe:
    """What a regression tells from features.

    Attributes:
        name: what the features describe, and what is predicted from them.
        accuracy: on images that were left out of the fit.
        chance: the share of the most frequent answer.
        p: probability of so many right answers by chance, after a correction for the number of tests; 1 at most.
        n: number of images.
    """

    name: str
    accuracy: float
    chance: float
    p: float
    n: int


def deep_features(model: nn.Module, images: Tensor, input_spec: InputSpec | None) -> Tensor:
    """Return the features (n, D) before the classifier, reduced to their main components."""
    take = DeepFeatures(model)
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    with torch.no_grad(), evaluating(model):
        rows = torch.cat([take(to_inputs(some.to(device), input_spec)).cpu() for some in images.split(32)]).double()
    rows = rows - rows.mean(0)
    basis = torch.linalg.svd(rows, full_matrices=False).Vh[:DIMENSIONS]
    reduced = rows @ basis.T
    return reduced[:, reduced.std(0) > 1e-9 * reduced.std().clamp_min(1e-12)]


def out_of_fold(features: Tensor, labels: Tensor) -> Tensor:
    """Return the answers (n,) of regressions that were fitted to the images of the other folds."""
    folds = torch.randperm(len(labels), generator=generator(0, len(labels), "folds")) % FOLDS
    answers = torch.full_like(labels, -1)
    for fold in range(FOLDS):
        answers[folds == fold] = fitted_answers(features[folds != fold], labels[folds != fold], features[folds == fold])
    return answers


def fitted_answers(features: Tensor, labels: Tensor, others: Tensor) -> Tensor:
    """Return the answers for other features, of a regression on the classes that occur."""
    classes, targets = labels.unique(return_inverse=True)
    if len(classes) == 1 or features.shape[1] == 0:
        return labels.mode().values.expand(len(others)).clone()
    weight, bias = fit_linear(features, targets, strength=STRENGTH)
    return classes[(others.double() @ weight.T + bias).argmax(1)]


def probe(name: str, features: Tensor, labels: Tensor, tests: int = 1) -> Probe:
    """Tell labels (n,) from features (n, D), and compare with the most frequent label.

    Args:
        name: of the result.
        features: of the images.
        labels: class indices, or those of something else such as a source.
        tests: number of tests that the p-value is corrected for.
    """
    right = int((out_of_fold(features, labels) == labels).sum())
    chance = float(labels.unique(return_counts=True)[1].max()) / len(labels)
    p = float(binomtest(right, len(labels), chance, "greater").pvalue)
    return Probe(name, right / len(labels), chance, min(1.0, tests * p), len(labels))
