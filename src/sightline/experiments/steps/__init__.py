"""What studies make once for all of their runs; one class per file."""

from sightline.experiments.steps.base import STEPS, AnyStep, Step, StepContext

__all__ = ["STEPS", "AnyStep", "Step", "StepContext"]
