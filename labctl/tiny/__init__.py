"""Model files of a few hundred kilobytes that real llama.cpp loads: for the quickstart, for tests, for a first look.

Written with the standard library alone, in milliseconds, the same bytes everywhere.
"""

from labctl.tiny.embedding import embedding
from labctl.tiny.scripted import scripted

__all__ = ["embedding", "scripted"]
