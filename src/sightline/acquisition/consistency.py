"""Images whose explanation does not hold."""

import torch
from torch import Tensor

from sightline._core.checks import check_fraction
from sightline.acquisition.base import Pool, Ranking
from sightline.acquisition.registry import QUERY_STRATEGIES
from sightline.attacks.consistency import Perturbation, check_options
from sightline.explainers import create_explainer
from sightline.metrics.consistency import ExplanationConsistency


@QUERY_STRATEGIES.register("consistency")
class Consistency(Ranking):
    """Images whose map changes most when what it left out is attacked: those with the lowest consistency first.

    The score is v = 1 - E ("Improving Network Interpretability via Explanation Consistency Evaluation", Eqs. 1 to 4 and 7). The
    predicted class stands for the label, which is not known: it is explained, and FGSM raises its cross-entropy. Images whose
    prediction changes all have the score 1; of these some are drawn.

    Args:
        explainer: whose maps, by name.
        perturbation: of what the map left out: `"fgsm"`, `"zero"` or `"mean"`.
        eps: FGSM's change of a pixel, in [0, 1].
    """

    def __init__(self, explainer: str = "gradcam", perturbation: Perturbation = "fgsm", eps: float = 0.1) -> None:
        check_options(perturbation=perturbation)
        check_fraction("(0, 1]", eps=eps)
        self.explainer = create_explainer(explainer)
        self.perturbation: Perturbation = perturbation
        self.eps = eps

    def scores(self, pool: Pool) -> Tensor:
        """1 - E (N,)."""
        metric = ExplanationConsistency(
            pool.model,
            self.explainer,
            perturbation=self.perturbation,
            eps=self.eps,
            layer=pool.layer,
            input_spec=pool.input_spec,
        )
        for images in pool.images():
            maps = self.explainer(pool.model, images, None, pool.layer, pool.input_spec)
            metric.update(images, maps)
        return 1 - torch.cat([values.cpu() for values in metric.values])
