"""Tests that run inside a real host (``tests/rig/host exec``): labctl against the host's own systemd and Docker."""
