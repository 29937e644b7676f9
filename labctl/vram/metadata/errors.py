"""The one exception of this package: what is wrong with a model file, in words."""

from __future__ import annotations


class MetadataError(ValueError):
    """A model file, or the way to it, is not as it must be.

    Args:
        summary: one sentence in plain words, no full stop.
        where: the file or address it is about, free of secrets; may be empty.
        hint: the remedy, in the imperative; may be empty.
    """

    def __init__(self, *, summary: str, where: str = "", hint: str = "") -> None:
        self.summary = summary
        self.where = where
        self.hint = hint
        super().__init__(f"{where}: {summary}" if where else summary)

    def at(self, where: str) -> MetadataError:
        """Return the same error about ``where``, unless it already says where."""
        return self if self.where else MetadataError(summary=self.summary, where=where, hint=self.hint)
