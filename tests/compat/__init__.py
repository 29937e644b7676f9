"""Tests of the compatibility gate and its tables."""
