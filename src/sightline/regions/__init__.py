"""Regions of images: the object by masks and boxes, backgrounds, and what fills a region."""
