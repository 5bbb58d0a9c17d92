"""Public data sets by name, each read in its official layout."""
