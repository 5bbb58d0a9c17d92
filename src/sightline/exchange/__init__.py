"""Masks to and from annotation tools: COCO, LabelMe, CVAT and Label Studio."""

from sightline.exchange.masks import TOOLS, export_masks, import_masks

__all__ = ["TOOLS", "export_masks", "import_masks"]
