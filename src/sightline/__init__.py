"""sightline: train image classifiers that use the object, and measure whether they do.

Public names are imported lazily, so `import sightline` costs little more than `import torch`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from sightline._core.version import __version__ as __version__

if TYPE_CHECKING:
    from sightline import attacks, data, explainers, guides, metrics
    from sightline.data.batch import Batch
    from sightline.diagnosis import diagnose
    from sightline.errors import MissingDependencyError, NonFiniteLossError, NotDefinedError, SightlineError
    from sightline.explainers import Explainer, create_explainer, explain, maps
    from sightline.fixing import Fixed, fix
    from sightline.guides import (
        GAIN,
        L1,
        AdversarialBackground,
        AttentionGate,
        AttentionPooling,
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
    from sightline.guides.check import check_model
    from sightline.guides.objective import Objective
    from sightline.models import load_model, open_model
    from sightline.network import features, targets
    from sightline.network.input_spec import InputSpec
    from sightline.network.layout import Layer
    from sightline.network.tap import Tap
    from sightline.reporting import show
    from sightline.reporting.comparison import compare
    from sightline.reporting.map_logger import MapLogger
    from sightline.runs import Recipe, Run
    from sightline.training import train

_LAZY_IMPORTS = {
    "AdversarialBackground": "guides",
    "AttentionGate": "guides",
    "AttentionPooling": "guides",
    "Batch": "data.batch",
    "Energy": "guides",
    "EqualizedFocal": "guides",
    "Explainer": "explainers",
    "ExplanationConsistency": "guides",
    "Fixed": "fixing",
    "Focal": "guides",
    "GAIN": "guides",
    "GroupDRO": "guides",
    "Guide": "guides",
    "HardNegativeMining": "guides",
    "InputSpec": "network.input_spec",
    "L1": "guides",
    "Layer": "network.layout",
    "MapLogger": "reporting.map_logger",
    "MissingDependencyError": "errors",
    "NonFiniteLossError": "errors",
    "NotDefinedError": "errors",
    "Objective": "guides.objective",
    "RandomBackground": "guides",
    "Recipe": "runs",
    "RegionActivation": "guides",
    "RightReasons": "guides",
    "Run": "runs",
    "SegmentOverlap": "guides",
    "SightlineError": "errors",
    "Tap": "network.tap",
    "check_model": "guides.check",
    "compare": "reporting.comparison",
    "create_explainer": "explainers",
    "create_guide": "guides",
    "diagnose": "diagnosis",
    "explain": "explainers",
    "fix": "fixing",
    "load_model": "models",
    "open_model": "models",
    "show": "reporting",
    "train": "training",
}

__all__ = [
    "GAIN",
    "L1",
    "AdversarialBackground",
    "AttentionGate",
    "AttentionPooling",
    "Batch",
    "Energy",
    "EqualizedFocal",
    "Explainer",
    "ExplanationConsistency",
    "Fixed",
    "Focal",
    "GroupDRO",
    "Guide",
    "HardNegativeMining",
    "InputSpec",
    "Layer",
    "MapLogger",
    "MissingDependencyError",
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
    "fix",
    "guides",
    "load_model",
    "maps",
    "metrics",
    "open_model",
    "show",
    "targets",
    "train",
]


_MODULES = {
    "attacks": "attacks",
    "data": "data",
    "explainers": "explainers",
    "features": "network.features",
    "guides": "guides",
    "maps": "explainers.maps",
    "metrics": "metrics",
    "targets": "network.targets",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY_IMPORTS:
        value = getattr(import_module(f"sightline.{_LAZY_IMPORTS[name]}"), name)
    elif name in _MODULES:
        value = import_module(f"sightline.{_MODULES[name]}")
    else:
        raise AttributeError(f"module 'sightline' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
