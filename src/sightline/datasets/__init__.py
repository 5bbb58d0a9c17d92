"""Datasets by name: public benchmarks, and datasets that are made from others."""
