"""Measurements: each a command that prints a table, with ratios to something else in the same run."""
