"""Ansible's side of modules; they run where labctl runs."""
