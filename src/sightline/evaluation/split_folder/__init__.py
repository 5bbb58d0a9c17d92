"""An evaluation of a run on one split, on disk: summary.json, samples.csv, curves.json and gallery/."""

from sightline.evaluation.split_folder.curves import read_curves
from sightline.evaluation.split_folder.folder import (
    Key,
    SplitEvaluation,
    check_writable,
    evaluation_folders,
    read_evaluation,
    write_evaluation,
)
from sightline.evaluation.split_folder.gallery import SavedGallery
from sightline.evaluation.split_folder.samples import Samples

__all__ = [
    "Key",
    "Samples",
    "SavedGallery",
    "SplitEvaluation",
    "check_writable",
    "evaluation_folders",
    "read_curves",
    "read_evaluation",
    "write_evaluation",
]
