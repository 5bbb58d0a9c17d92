"""A network opened at a layer: the tap, its target layer, its input, its targets, its features, and views of images."""
