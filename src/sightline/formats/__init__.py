"""Readers of the user's own files: folders, tables, COCO, boxes and masks."""
