"""The command line, its views and the pages of the codes."""
