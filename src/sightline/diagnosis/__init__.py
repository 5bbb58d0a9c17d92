"""Diagnosis: does a model look at the object, and what to do if not."""

from sightline.diagnosis.advice import Advice, Training
from sightline.diagnosis.figures import Figure
from sightline.diagnosis.run import Diagnosis, diagnose
from sightline.diagnosis.verdict import Verdict

__all__ = ["Advice", "Diagnosis", "Figure", "Training", "Verdict", "diagnose"]
