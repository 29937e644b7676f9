"""Tests of labctl.resolve."""
