"""Finer-CAM: a class activation map of what sets a class apart from the classes most like it."""

from torch import Tensor

from sightline.errors import SightlineError
from sightline.explainers.cam import CAM
from sightline.explainers.registry import EXPLAINERS
from sightline.network.tap import Tapped
from sightline.network.targets import AgainstSimilar, ClassScore, Resolved, Targets


@EXPLAINERS.register("finercam", differentiable=True, needs_gradient=True, needs_layer=True)
class FinerCAM(CAM):
    """Finer-CAM: a CAM of the class's score minus that of the most similar classes (Zhang et al. 2025).

    The score is y_c - weight * mean(y_d) over the `count` classes d whose logits are the nearest to y_c. As a target of any
    other explainer, it is `sl.targets.AgainstSimilar`.

    Args:
        method: name of the class activation map; one that uses gradients.
        count: number of similar classes; all other classes if the model has fewer.
        weight: weight of their mean score; the paper's gamma.

    References:
        Zhang et al., "Finer-CAM: Spotting the Difference Reveals Finer Details for Visual Explanation" (CVPR 2025),
            section 3.2: the difference to the scores of similar classes.
    """

    def __init__(self, method: str = "gradcam", count: int = 3, weight: float = 0.6) -> None:
        base = EXPLAINERS.create(method)
        if type(base) is not CAM or not base.needs_gradient:
            raise SightlineError(
                f"method is {method!r}; expected a class activation map that uses gradients, such as 'gradcam', 'gradcam++' or "
                "'layercam'"
            )
        super().__init__(base.function, reduce=base.reduce)
        self.similar = AgainstSimilar(None, count, weight)

    def raw_maps(self, tapped: Tapped, targets: Targets = None, create_graph: bool = False) -> list[Tensor]:
        """Return the map (B, h, w) of each tapped layer, as `CAM.raw_maps` does; targets are classes."""
        if isinstance(targets, Resolved) and isinstance(targets.score, ClassScore):
            targets = targets.score.classes
        if not (targets is None or isinstance(targets, Tensor | int)):
            raise SightlineError(
                f"targets is a {type(targets).__name__}; finercam sets a class against similar ones; expected class indices or "
                "None"
            )
        against = AgainstSimilar(targets, self.similar.count, self.similar.weight)
        return super().raw_maps(tapped, against, create_graph)
