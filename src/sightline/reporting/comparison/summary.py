"""The comparison as a small table for a terminal."""

import numpy as np
from rich.table import Table

from sightline.evaluation.comparison import ACCURACY, CHANCE, WORST_GROUP, Comparison
from sightline.evaluation.split_folder.folder import Key
from sightline.reporting.formatting import ENERGY, change, number, title

STYLES = {"better": "bold green", "worse": "bold red", "unclear": "dim"}


def summary(comparison: Comparison) -> Table:
    """Accuracies and energy on the object on every split; a difference is colored where every interval excludes zero."""
    table = Table(box=None, pad_edge=False)
    table.add_column("split")
    table.add_column("measure")
    for heading in (comparison.theirs.label, comparison.ours.label, "difference"):
        table.add_column(heading, justify="right")
    for split in comparison.splits:
        energies = [Key(ENERGY, name) for name in split.explainers if name not in CHANCE]
        for key in (ACCURACY, WORST_GROUP, *energies):
            if key not in split.differences:
                continue
            d = split.differences[key]
            name = title(key.metric) + (f", {key.explainer}" if key.explainer else "")
            means = (number(float(np.mean(values)), key.metric) for values in (d.theirs, d.ours))
            table.add_row(split.split, name, *means, f"[{STYLES[d.outcome]}]{change(d.value, key.metric)}[/]")
    return table
