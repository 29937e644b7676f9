"""Plans: what apply would do and why, as values. Pure: no file, clock, network or randomness."""
