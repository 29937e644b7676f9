"""Labs with mistakes in them, and everything that the command line says about each."""
