"""Heads that are fitted to their optimum: functions of tensors, without a recipe, a model or a file."""

from sightline.heads.attention import fit_attention
from sightline.heads.linear import balanced_weights, fit_linear
from sightline.heads.prototypes import fit_prototypes
from sightline.heads.strength import STRENGTHS, choose_strength

__all__ = ["STRENGTHS", "balanced_weights", "choose_strength", "fit_attention", "fit_linear", "fit_prototypes"]
