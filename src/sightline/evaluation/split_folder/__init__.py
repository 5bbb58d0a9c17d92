"""An evaluation of a run on one split, on disk: summary.json, samples.csv, curves.json and gallery/."""
