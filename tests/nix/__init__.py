"""Nix as Debian packages it, reading what labctl writes; there is no nixpkgs here."""
