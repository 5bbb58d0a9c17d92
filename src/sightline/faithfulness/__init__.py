"""Metrics that change images or the model: whether a map shows what the prediction depends on, and how stable it is."""
