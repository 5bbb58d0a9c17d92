"""Fixing a model: people mark where it should look, and it is fitted again.

`marks` and `protocol` say what a mark is and what a refit returns; `mark_files` writes marks as files; `marking` is the page
on which people mark.
"""
