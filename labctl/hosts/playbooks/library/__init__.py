"""Ansible modules; they run on hosts."""
