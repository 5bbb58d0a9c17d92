"""Explainers of transformers: maps from the attention between tokens."""
