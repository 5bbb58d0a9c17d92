"""Diagnosis: does a model look at the object, and what to do if not."""

from sightline.diagnosis.advice import Advice, Training
from sightline.diagnosis.figures import Figure
from sightline.diagnosis.page import write_diagnosis
from sightline.diagnosis.result import Diagnosis
from sightline.diagnosis.run import diagnose
from sightline.diagnosis.verdict import Verdict

__all__ = ["Advice", "Diagnosis", "Figure", "Training", "Verdict", "diagnose", "write_diagnosis"]
