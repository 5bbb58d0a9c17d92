"""Reproduction: the papers' tables and figures, and a user's own studies, made by one command each."""

from sightline.studies.plan import make_plan, read_plan
from sightline.studies.run import carry_out, reproduce
from sightline.studies.study import KINDS, Part, Study, read_study, shipped_studies

__all__ = [
    "KINDS",
    "Part",
    "Study",
    "carry_out",
    "make_plan",
    "read_plan",
    "read_study",
    "reproduce",
    "shipped_studies",
]
