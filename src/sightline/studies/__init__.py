"""Studies: tables and figures of papers and of users, each made by one command."""

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
