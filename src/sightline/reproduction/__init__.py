"""Reproduction: the papers' tables and figures, made again by one command each."""

from sightline.reproduction.run import reproduce
from sightline.reproduction.study import KINDS, Part, Study, read_study, shipped_studies

__all__ = ["KINDS", "Part", "Study", "read_study", "reproduce", "shipped_studies"]
