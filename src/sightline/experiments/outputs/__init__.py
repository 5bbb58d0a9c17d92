"""What studies of trained runs measure and draw; one class per file."""

from sightline.experiments.outputs.base import OUTPUTS, AnyOutput, Output
from sightline.experiments.outputs.runs import FinishedRuns

__all__ = ["OUTPUTS", "AnyOutput", "FinishedRuns", "Output"]
