"""Tests of model facts and memory models."""
