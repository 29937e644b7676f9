"""Hosts: looking at them and changing them. All input and output of plan and apply is below this package."""
