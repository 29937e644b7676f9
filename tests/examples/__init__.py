"""The examples: what they render to, whether the real programs take it, and that it never moves by itself."""
