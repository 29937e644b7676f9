"""Runs a real host for the tests, and what is tested in it."""
