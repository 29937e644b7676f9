"""The memory benchmark: our estimates and a peer's against what the engines really allocate."""
