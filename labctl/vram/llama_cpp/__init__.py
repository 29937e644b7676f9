"""llama.cpp: exact memory of a llama-server, by replaying its allocator over a light graph of the model."""

from labctl.vram.llama_cpp.estimate import estimate
from labctl.vram.llama_cpp.settings import Settings

__all__ = ["Settings", "estimate"]
