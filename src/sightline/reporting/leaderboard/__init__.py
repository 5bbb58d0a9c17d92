"""The leaderboard page of evaluations."""
