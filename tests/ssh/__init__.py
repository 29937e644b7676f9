"""Connections to other machines, over real SSH servers on loopback addresses."""
