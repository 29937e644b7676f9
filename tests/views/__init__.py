"""Tests of labctl.views."""
