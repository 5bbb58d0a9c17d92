"""All generated pages, by file name."""

from collections.abc import Callable
from typing import Any

from reference.commands import commands
from reference.keys import recipe_keys, study_keys, sweep_keys
from reference.registered import page


def registries() -> dict[str, Any]:
    """Return the registries that have a page, by the name of the page."""
    from sightline.acquisition import QUERY_STRATEGIES
    from sightline.data import DATASETS
    from sightline.explainers import EXPLAINERS
    from sightline.guides import GUIDES
    from sightline.localization.detectors import BOX_DETECTORS
    from sightline.metrics import METRICS

    return {
        "datasets": DATASETS,
        "explainers": EXPLAINERS,
        "guides": GUIDES,
        "metrics": METRICS,
        "query-strategies": QUERY_STRATEGIES,
        "box-detectors": BOX_DETECTORS,
    }


INTROS = {
    "datasets": "Every dataset by name, for `data:` in a recipe, `--data` of a command and `sl.data.create_dataset`.",
    "explainers": "Every explainer by name, for `--methods`, `sl.explain` and `sl.create_explainer`.",
    "guides": "Every guide by name, for `guide:` in a recipe and `sl.create_guide`.",
    "metrics": "Every metric by name, for `evaluation.metrics` in a recipe and for studies; `sl.metrics` has the classes.",
    "query-strategies": "Every query strategy of active learning by name, for `sightline acquire --strategy`.",
    "box-detectors": "Every box detector by name, for `sightline boxes --detector`.",
}

PAGES: dict[str, Callable[[], str]] = {
    "commands.md": commands,
    "recipe-keys.md": recipe_keys,
    "sweep-keys.md": sweep_keys,
    "study-keys.md": study_keys,
} | {
    f"{name}.md": page(name.capitalize().replace("-", " "), intro, name, lambda name=name: registries()[name])  # type: ignore[misc]
    for name, intro in INTROS.items()
}
