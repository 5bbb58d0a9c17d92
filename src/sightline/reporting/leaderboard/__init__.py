"""The leaderboard page of evaluations."""

from sightline._core.optional import requires_extra

with requires_extra("report", "a leaderboard"):
    from sightline.reporting.leaderboard.page import write_leaderboard

__all__ = ["write_leaderboard"]
