"""Reproduction: the papers' tables and figures, and a user's own studies, made by one command each."""

from sightline._core.optional import requires_extra

with requires_extra("report", "a study"):
    from sightline.studies.plan import load_study, make_grid
    from sightline.studies.run import reproduce, run_study
    from sightline.studies.study import KINDS, Part, Study, read_study, shipped_studies

__all__ = [
    "KINDS",
    "Part",
    "Study",
    "load_study",
    "make_grid",
    "read_study",
    "reproduce",
    "run_study",
    "shipped_studies",
]
