"""The guides, by name."""

from sightline._core.registry import Registry
from sightline.guides.base import Guide

GUIDES: Registry[Guide] = Registry(
    "guide",
    modules=(
        "sightline.guides.segment_overlap",
        "sightline.guides.region_activation",
        "sightline.guides.explanation_consistency",
        "sightline.guides.focal",
        "sightline.guides.hard_negative_mining",
        "sightline.guides.right_reasons",
        "sightline.guides.energy",
        "sightline.guides.gain",
        "sightline.guides.attention_gate",
        "sightline.guides.attention_pooling",
        "sightline.guides.random_background",
        "sightline.guides.adversarial_background",
        "sightline.guides.group_dro",
        "sightline.guides.jtt",
        "sightline.guides.afr",
        "sightline.guides.impactx",
        "sightline.guides.attention_branch",
        "sightline.guides.wae",
        "sightline.guides.iccnn",
    ),
)
