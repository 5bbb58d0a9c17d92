"""sightline: train image classifiers that use the object, and measure whether they do.

Public names are imported lazily, so `import sightline` costs little more than `import torch`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from sightline._core.version import __version__ as __version__

if TYPE_CHECKING:
    from sightline import attacks as attacks
    from sightline import data as data
    from sightline import explainers as explainers
    from sightline import guides as guides
    from sightline import metrics as metrics
    from sightline.data.batch import Batch as Batch
    from sightline.diagnosis import diagnose as diagnose
    from sightline.errors import MissingDependencyError as MissingDependencyError
    from sightline.errors import NonFiniteLossError as NonFiniteLossError
    from sightline.errors import NotDefinedError as NotDefinedError
    from sightline.errors import SightlineError as SightlineError
    from sightline.explainers import Explainer as Explainer
    from sightline.explainers import create_explainer as create_explainer
    from sightline.explainers import explain as explain
    from sightline.explainers import maps as maps
    from sightline.fixing import Fixed as Fixed
    from sightline.fixing.fix import fix as fix
    from sightline.guides import GAIN as GAIN
    from sightline.guides import L1 as L1
    from sightline.guides import AdversarialBackground as AdversarialBackground
    from sightline.guides import AttentionGate as AttentionGate
    from sightline.guides import AttentionPooling as AttentionPooling
    from sightline.guides import Energy as Energy
    from sightline.guides import EqualizedFocal as EqualizedFocal
    from sightline.guides import ExplanationConsistency as ExplanationConsistency
    from sightline.guides import Focal as Focal
    from sightline.guides import GroupDRO as GroupDRO
    from sightline.guides import Guide as Guide
    from sightline.guides import HardNegativeMining as HardNegativeMining
    from sightline.guides import RandomBackground as RandomBackground
    from sightline.guides import RegionActivation as RegionActivation
    from sightline.guides import RightReasons as RightReasons
    from sightline.guides import SegmentOverlap as SegmentOverlap
    from sightline.guides import create_guide as create_guide
    from sightline.models import load_model as load_model
    from sightline.models import open_model as open_model
    from sightline.network import features as features
    from sightline.network import targets as targets
    from sightline.network.input_spec import InputSpec as InputSpec
    from sightline.network.layout import Layer as Layer
    from sightline.network.tap import Tap as Tap
    from sightline.objectives.check import check_model as check_model
    from sightline.objectives.objective import Objective as Objective
    from sightline.reporting import show as show
    from sightline.reporting.comparison import compare as compare
    from sightline.reporting.map_logger import MapLogger as MapLogger
    from sightline.runs import Recipe as Recipe
    from sightline.runs import Run as Run
    from sightline.training import train as train

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
    "Objective": "objectives",
    "RandomBackground": "guides",
    "Recipe": "runs",
    "RegionActivation": "guides",
    "RightReasons": "guides",
    "Run": "runs",
    "SegmentOverlap": "guides",
    "SightlineError": "errors",
    "Tap": "network.tap",
    "check_model": "objectives",
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

__all__ = sorted((*_LAZY_IMPORTS, *_MODULES))


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
