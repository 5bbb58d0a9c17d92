"""Reference pages of the docs, generated from the code: commands, keys of recipes, sweeps and studies, and registered names."""
