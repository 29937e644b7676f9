"""Hosts: real supervisord, systemd, Docker and HTTP servers."""
