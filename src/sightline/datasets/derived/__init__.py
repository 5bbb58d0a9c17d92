"""Data sets made from other data sets: recomposed, biased, masked, or a subset."""
