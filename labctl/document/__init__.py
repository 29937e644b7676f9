"""lab.yaml as located values: text in, plain values and the place of every key and value out."""

from labctl.document.document import Document
from labctl.document.overlays import overlay
from labctl.document.parser import parse

__all__ = ["Document", "overlay", "parse"]
