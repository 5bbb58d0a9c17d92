"""What studies of trained runs measure and draw; one class per file."""

from sightline.studies.outputs.base import OUTPUTS, AnyOutput, Output
from sightline.studies.outputs.runs import FinishedRuns

__all__ = ["OUTPUTS", "AnyOutput", "FinishedRuns", "Output"]
