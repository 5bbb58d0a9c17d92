"""sightline: train image classifiers that look at the right thing, and measure whether they do.

The names below load their room when first used, so that `import sightline` costs torch and torchvision alone.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sightline import attacks, data, explainers, features, guides, maps, metrics, targets
    from sightline.check import check_model
    from sightline.data.batch import Batch
    from sightline.diagnosis import diagnose
    from sightline.errors import NonFiniteLossError, NotDefinedError, SightlineError
    from sightline.explainers import Explainer, create_explainer, explain
    from sightline.guides import (
        GAIN,
        L1,
        AdversarialBackground,
        AttentionGate,
        Energy,
        EqualizedFocal,
        ExplanationConsistency,
        Focal,
        GroupDRO,
        Guide,
        HardNegativeMining,
        RandomBackground,
        RegionActivation,
        RightReasons,
        SegmentOverlap,
        create_guide,
    )
    from sightline.input_spec import InputSpec
    from sightline.layers import Layer
    from sightline.models import load_model
    from sightline.objective import Objective
    from sightline.reporting import compare, show
    from sightline.tap import Tap
    from sightline.training import Recipe, Run, train

__version__ = "0.1.0"

_ROOMS = {
    "AdversarialBackground": "guides",
    "AttentionGate": "guides",
    "Batch": "data.batch",
    "Energy": "guides",
    "EqualizedFocal": "guides",
    "Explainer": "explainers",
    "ExplanationConsistency": "guides",
    "Focal": "guides",
    "GAIN": "guides",
    "GroupDRO": "guides",
    "Guide": "guides",
    "HardNegativeMining": "guides",
    "InputSpec": "input_spec",
    "L1": "guides",
    "Layer": "layers",
    "NonFiniteLossError": "errors",
    "NotDefinedError": "errors",
    "Objective": "objective",
    "RandomBackground": "guides",
    "Recipe": "training",
    "RegionActivation": "guides",
    "RightReasons": "guides",
    "Run": "training",
    "SegmentOverlap": "guides",
    "SightlineError": "errors",
    "Tap": "tap",
    "check_model": "check",
    "compare": "reporting",
    "create_explainer": "explainers",
    "create_guide": "guides",
    "diagnose": "diagnosis",
    "explain": "explainers",
    "load_model": "models",
    "show": "reporting",
    "train": "training",
}

__all__ = [
    "GAIN",
    "L1",
    "AdversarialBackground",
    "AttentionGate",
    "Batch",
    "Energy",
    "EqualizedFocal",
    "Explainer",
    "ExplanationConsistency",
    "Focal",
    "GroupDRO",
    "Guide",
    "HardNegativeMining",
    "InputSpec",
    "Layer",
    "NonFiniteLossError",
    "NotDefinedError",
    "Objective",
    "RandomBackground",
    "Recipe",
    "RegionActivation",
    "RightReasons",
    "Run",
    "SegmentOverlap",
    "SightlineError",
    "Tap",
    "attacks",
    "check_model",
    "compare",
    "create_explainer",
    "create_guide",
    "data",
    "diagnose",
    "explain",
    "explainers",
    "features",
    "guides",
    "load_model",
    "maps",
    "metrics",
    "show",
    "targets",
    "train",
]


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        value = getattr(import_module(f"sightline.{_ROOMS[name]}"), name)
        globals()[name] = value
        return value
    if name in __all__:
        return import_module(f"sightline.{name}")
    raise AttributeError(f"module 'sightline' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
