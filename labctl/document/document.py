"""The document: plain values, and for any path into them the place in the file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from labctl.diagnostics import At, Diagnostic, DocPath, Related, Span
from labctl.document.nodes import Entry, Node, Use, first_row, plain
from labctl.document.source import Place


@dataclass(frozen=True, slots=True)
class _Found:
    """The deepest known part of a path."""

    node: Node
    entry: Entry | None
    whole: bool
    uses: tuple[Use, ...]


@dataclass(frozen=True, slots=True)
class Document:
    """A parsed file, overlays laid over it.

    Attributes:
        root: the located tree; its top is a mapping.
        file: the file's name as the user gave it.
        data: the same as dicts, lists and scalars, for validation.
    """

    root: Node
    file: str
    data: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "data", plain(self.root))

    def span(self, path: DocPath, at: At = At.VALUE) -> Span | None:
        """Return the place of a path's key or value.

        An unknown path gives the key of its longest known part: the place where something is missing. None only for
        a document without any place.
        """
        found = self._find(path)
        return self._place(found, at).span()

    def locate(self, diagnostic: Diagnostic) -> Diagnostic:
        """Return the diagnostic with its spans filled in; those it has already are kept."""
        related = tuple(self._locate_related(r) for r in diagnostic.related)
        if diagnostic.path is None or diagnostic.span is not None:
            return replace(diagnostic, related=related)
        found = self._find(diagnostic.path)
        place = self._place(found, diagnostic.at)
        return replace(diagnostic, span=place.span(), related=(*related, *_uses(found, place, diagnostic.at)))

    def locate_all(self, diagnostics: Iterable[Diagnostic]) -> tuple[Diagnostic, ...]:
        """Locate each of them."""
        return tuple(self.locate(d) for d in diagnostics)

    def _locate_related(self, related: Related) -> Related:
        if related.path is None or related.span is not None:
            return related
        return replace(related, span=self.span(related.path))

    def _find(self, path: DocPath) -> _Found:
        node, entry = self.root, None
        uses: list[Use] = []
        for part in path:
            content = node.content
            if isinstance(content, Mapping) and isinstance(part, str) and part in content:
                entry = content[part]
                uses += [entry.use] if entry.use else []
                node = entry.value
            elif isinstance(content, tuple) and isinstance(part, int) and 0 <= part < len(content):
                node, entry = content[part], None
            elif part == 0 and not isinstance(content, tuple):
                continue  # one element where a list may stand: the schema counts it as the first
            else:
                return _Found(node, entry, whole=False, uses=tuple(uses))
            uses += [node.use] if node.use else []
        return _Found(node, entry, whole=True, uses=tuple(uses))

    def _place(self, found: _Found, at: At) -> Place:
        empty = found.node.place.start == found.node.place.end
        if found.entry is not None and (at is At.KEY or not found.whole or empty):
            return found.entry.key
        if found.node is self.root and isinstance(self.root.content, Mapping):
            entry = next(iter(self.root.content.values()), None)
            return entry.key if entry else self.root.place
        return first_row(found.node)


def _uses(found: _Found, place: Place, at: At) -> tuple[Related, ...]:
    """Name the aliases and merge keys on the way to a place that is written elsewhere."""
    key = found.entry is not None and (at is At.KEY or not found.whole)
    own = found.node.use if key else None
    uses = [use for use in found.uses if use is not own and use.place != place]
    return tuple(Related(f"{use.word} at line {use.place.line}", span=use.place.span()) for use in uses)
