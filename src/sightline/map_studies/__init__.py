"""Studies of the maps of given models, one kind per file."""
