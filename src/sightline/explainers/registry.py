"""The explainers, by name."""

from sightline._core.registry import Registry
from sightline.explainers.base import Explainer

EXPLAINERS: Registry[Explainer] = Registry(
    "explainer",
    modules=(
        "sightline.explainers.cam",
        "sightline.explainers.smooth",
        "sightline.explainers.forward_cam",
        "sightline.explainers.fullgrad",
        "sightline.explainers.attribution",
        "sightline.explainers.perturbation",
        "sightline.explainers.lots",
        "sightline.explainers.partition_shap",
        "sightline.explainers.weighted_shap",
        "sightline.explainers.builtin_maps",
        "sightline.explainers.baseline",
    ),
)
