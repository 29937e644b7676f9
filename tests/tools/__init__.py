"""Real tools that tests use, and how to get them."""
