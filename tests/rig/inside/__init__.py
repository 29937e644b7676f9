"""Tests that run inside a real host (``tests/rig/lab pytest``): labctl against the host's own systemd and Docker."""
