"""Studies that draw trained models: the same images under several models, and the images that tell most about one."""
