"""Tests of labctl.engines."""
