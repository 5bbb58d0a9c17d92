"""Evaluations of models x explainers x metrics on disk: one reader and one writer per file."""

from sightline.evaluation.grid_folder.cells import Cell, Column, Value
from sightline.evaluation.grid_folder.folder import Evaluations, read_evaluations

__all__ = ["Cell", "Column", "Evaluations", "Value", "read_evaluations"]
