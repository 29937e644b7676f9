"""labctl: one lab.yaml for a private inference lab."""
