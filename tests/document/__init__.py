"""Located documents: parsing, places, overlays, files."""
