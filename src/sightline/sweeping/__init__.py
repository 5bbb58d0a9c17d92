"""Hyperparameter search on Optuna: many runs of one recipe, judged by a validation value."""

from sightline._core.optional import requires_extra

with requires_extra("sweep", "a sweep"):
    from sightline.sweeping.document import Sweep, read_sweep, shipped_sweeps
    from sightline.sweeping.outcome import Outcome
    from sightline.sweeping.run import sweep

__all__ = ["Outcome", "Sweep", "read_sweep", "shipped_sweeps", "sweep"]
