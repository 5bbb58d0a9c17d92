"""Data sets by name: public benchmarks, and data sets that are derived from others."""
