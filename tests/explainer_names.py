"""Explainers by what they need, for tests that go over all of them."""

from sightline.explainers import EXPLAINERS

# Of transformers alone.
OF_ATTENTION = {entry.name for entry in EXPLAINERS if entry.capabilities.get("needs_attention")}
# Of a model that a guide has changed.
OF_A_BRANCH = {"attention_branch", "attention_pooling", "iccnn", "impactx"}
# What a small network of convolutions does not have.
ELSEWHERE = OF_ATTENTION | OF_A_BRANCH
