"""Blueprints: each is a whole lab, and a start never costs anybody a file."""
