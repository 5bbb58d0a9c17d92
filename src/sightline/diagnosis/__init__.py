"""Diagnosis: whether a model uses the object, and what to do if not."""

from sightline.diagnosis.measurements import Measurement
from sightline.diagnosis.page import write_diagnosis
from sightline.diagnosis.recommendations import Recommendation, TrainingConfig
from sightline.diagnosis.result import Diagnosis
from sightline.diagnosis.run import diagnose
from sightline.diagnosis.verdict import Verdict

__all__ = ["Diagnosis", "Measurement", "Recommendation", "TrainingConfig", "Verdict", "diagnose", "write_diagnosis"]
