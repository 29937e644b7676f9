"""Tests of the code itself: sizes, purity, layers, docstrings, registries, tables."""
