"""Laying one document over another, as JSON Merge Patch (RFC 7396) does: the places stay those of the own file."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import replace

from labctl.diagnostics import Diagnostic, Result
from labctl.document.document import Document
from labctl.document.nodes import Entry, Node


def overlay(base: Document, over: Document) -> Result[Document]:
    """Return ``base`` with ``over`` laid over it: mappings merge, lists and scalars replace, an empty value removes.

    Every value keeps the place in the file that it comes from. Removing what is not there is an error (LAB015), so
    that a misspelt name in an overlay does not go unnoticed.
    """
    found: list[Diagnostic] = []
    return Result(Document(_merge(base.root, over.root, found), base.file), tuple(found))


def _merge(base: Node, over: Node, found: list[Diagnostic]) -> Node:
    entries = dict(base.content) if isinstance(base.content, Mapping) else {}
    for key, entry in over.content.items() if isinstance(over.content, Mapping) else ():
        if entry.value.content is None:
            _remove(entries, key, entry, found)
        else:
            entries[key] = _lay(entries.get(key), entry, found)
    return replace(base, content=entries, size=1 + sum(e.value.size for e in entries.values()))


def _lay(known: Entry | None, entry: Entry, found: list[Diagnostic]) -> Entry:
    if not isinstance(entry.value.content, Mapping):
        return entry
    if known is not None and isinstance(known.value.content, Mapping):
        return replace(known, value=_merge(known.value, entry.value, found))
    return replace(entry, value=_merge(replace(entry.value, content={}), entry.value, found))


def _remove(entries: dict[str, Entry], key: str, entry: Entry, found: list[Diagnostic]) -> None:
    if entries.pop(key, None) is not None:
        return
    close = difflib.get_close_matches(key, entries, n=1)
    hint = f"did you mean `{close[0]}`?" if close else f"to add it, write `{key}: {{}}`"
    summary = f"an empty value in an overlay removes a key, and there is no `{key}` to remove"
    found.append(Diagnostic(code="LAB015", summary=summary, span=entry.key.span(), hint=hint))
