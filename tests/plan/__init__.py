"""Plans: cases as data files, and properties."""
