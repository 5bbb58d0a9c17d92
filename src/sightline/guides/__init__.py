"""Guides: methods that train a classifier to use the object.

Examples:
    >>> guide = sl.guides.from_config({"name": "segment_overlap", "beta": 0.5})  # as in a recipe
    >>> "segment_overlap" in sl.guides.list_guides()
    True
"""

from collections.abc import Mapping, Sequence
from typing import Any

from sightline.errors import SightlineError
from sightline.guides.adversarial_background import AdversarialBackground
from sightline.guides.afr import AFR
from sightline.guides.attention_branch import AttentionBranch
from sightline.guides.attention_gate import AttentionGate
from sightline.guides.attention_pooling import AttentionPooling
from sightline.guides.energy import L1, Energy
from sightline.guides.explanation_consistency import ExplanationConsistency
from sightline.guides.focal import EqualizedFocal, Focal
from sightline.guides.gain import GAIN
from sightline.guides.group_dro import GroupDRO
from sightline.guides.hard_negative_mining import HardNegativeMining
from sightline.guides.iccnn import ICCNN
from sightline.guides.impactx import IMPACTX
from sightline.guides.jtt import JTT
from sightline.guides.random_background import RandomBackground
from sightline.guides.region_activation import RegionActivation
from sightline.guides.registry import GUIDES
from sightline.guides.right_reasons import RightReasons
from sightline.guides.segment_overlap import SegmentOverlap
from sightline.guides.wae import WAE
from sightline.objectives.base import Context, Guide, GuideSum

__all__ = [
    "AFR",
    "GAIN",
    "GUIDES",
    "ICCNN",
    "IMPACTX",
    "JTT",
    "L1",
    "WAE",
    "AdversarialBackground",
    "AttentionBranch",
    "AttentionGate",
    "AttentionPooling",
    "Context",
    "Energy",
    "EqualizedFocal",
    "ExplanationConsistency",
    "Focal",
    "GroupDRO",
    "Guide",
    "GuideSum",
    "HardNegativeMining",
    "RandomBackground",
    "RegionActivation",
    "RightReasons",
    "SegmentOverlap",
    "create_guide",
    "from_config",
    "list_guides",
]


def list_guides() -> dict[str, dict[str, Any]]:
    """Return every guide's name with its capabilities."""
    return GUIDES.capabilities()


def create_guide(name: str, **options: Any) -> Guide:
    """Return a guide by name.

    Args:
        name: name of a guide; `sightline list guides` prints all of them.
        **options: options of the guide, as its class takes them.

    Returns:
        The guide.

    Raises:
        SightlineError: no guide has this name, or it has no such option, or a value is not accepted.

    Examples:
        >>> guide = sl.create_guide("segment_overlap", beta=0.5)
        >>> guide.beta
        0.5
    """
    return GUIDES.create(name, **options)


def from_config(config: str | Mapping[str, Any] | Sequence[Any] | None) -> Guide | GuideSum | None:
    """Return the guide that the `guide:` of a recipe describes.

    Args:
        config: None or `"none"`; a name; a mapping with `name`, its options and perhaps `scale`; or a list of these, whose
            guides are summed.
    """
    if config is None or config == "none":
        return None
    if isinstance(config, str):
        return create_guide(config)
    if isinstance(config, Mapping):
        if not isinstance(config.get("name"), str):
            raise SightlineError(f"guide {dict(config)!r} has no name; give {{name: ..., options}}")
        options = {key: value for key, value in config.items() if key not in ("name", "scale")}
        guide = create_guide(config["name"], **options)
        return guide if config.get("scale") is None else config["scale"] * guide
    if not isinstance(config, Sequence):
        raise SightlineError(f"guide is {config!r:.100}; expected a name, a mapping with a name, or a list of these")
    parts = [part for part in map(from_config, config) if part is not None]
    if not parts:
        return None
    return parts[0] if len(parts) == 1 else GuideSum([s for part in parts for s in (part + GuideSum([])).summands])
