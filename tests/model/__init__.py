"""Tests of labctl.model."""
