"""Targets: what they render, judged by the tools that will read it."""
