"""Write boxes and masks of whole datasets, each in one pass that resumes after an interruption."""

from sightline.localization.writing.boxes import BoxesWritten, check_boxes_name, write_boxes
from sightline.localization.writing.masks import MasksWritten, write_masks

__all__ = ["BoxesWritten", "MasksWritten", "check_boxes_name", "write_boxes", "write_masks"]
