"""VRAM: model facts and the memory model of each engine."""
