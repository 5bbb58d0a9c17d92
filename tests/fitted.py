"""The head that scikit-learn fits, and the comparison of two heads by their logits."""

import pytest
import torch
from torch import Tensor

linear_model = pytest.importorskip("sklearn.linear_model")
preprocessing = pytest.importorskip("sklearn.preprocessing")


def by_sklearn(
    features: Tensor, labels: Tensor, strength: float, weights: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The folded head of scikit-learn's regression behind its scaler."""
    share = None if weights is None else weights.numpy()
    total = len(features) if weights is None else weights.sum().item()
    scaler = preprocessing.StandardScaler().fit(features.numpy(), sample_weight=share)
    model = linear_model.LogisticRegression(C=1 / (strength * total), tol=1e-10, max_iter=10000)
    model.fit(scaler.transform(features.numpy()), labels.numpy(), sample_weight=share)
    weight = model.coef_ / scaler.scale_
    return torch.tensor(weight), torch.tensor(model.intercept_ - weight @ scaler.mean_)


def assert_same_logits(one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor], features: Tensor) -> None:
    """Biases of several logits may differ by a constant, which the softmax does not see."""
    logits, expected = (features.double() @ weight.T + bias for weight, bias in (one, other))
    if logits.shape[1] > 1:
        logits, expected = logits - logits.mean(1, keepdim=True), expected - expected.mean(1, keepdim=True)
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)
