"""The located tree: every value of a document with the places it and its key come from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from labctl.document.source import Place

Scalar = str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class Use:
    """Why a value is seen somewhere else than where it is written: an alias or a merge key."""

    word: str
    """``used`` (alias) or ``inherited`` (merge key)."""
    place: Place


@dataclass(frozen=True, slots=True)
class Entry:
    """A key of a mapping and its value."""

    key: Place
    value: Node
    use: Use | None = None
    """Set when the whole entry came through a merge key."""

    def inherited_at(self, place: Place) -> Entry:
        """Return this entry as seen through a merge key."""
        return replace(self, use=Use("inherited", place))


@dataclass(frozen=True, slots=True)
class Node:
    """A value.

    Attributes:
        place: where it is written: for an alias, the anchored value's place.
        content: a scalar, a tuple of nodes, or entries by key.
        size: how many nodes it is once every alias is written out.
        use: set when an alias brought it here.
    """

    place: Place
    content: Scalar | tuple[Node, ...] | Mapping[str, Entry]
    size: int = 1
    use: Use | None = None

    def used_at(self, place: Place) -> Node:
        """Return this node as seen through an alias."""
        return replace(self, use=Use("used", place))


def plain(node: Node) -> Any:
    """Return the value as dicts, lists and scalars; aliased values are copied, so that nobody shares a dict."""
    content = node.content
    if isinstance(content, Mapping):
        return {key: plain(entry.value) for key, entry in content.items()}
    if isinstance(content, tuple):
        return [plain(item) for item in content]
    return content


def first_row(node: Node) -> Place:
    """Return the part of a node that is on its first line, without the comment behind it."""
    place = node.place
    line = place.line
    if place.source.line_of(max(place.start, place.end - 1)) == line:
        return place
    content = node.content
    if isinstance(content, Mapping) and content and _is_block(place):
        entry = next(iter(content.values()))
        value = entry.value.place
        inside = value.source is place.source and value.line == line and entry.value.use is None
        return place._replace(end=first_row(entry.value).end if inside else _end_of(entry.key))
    if isinstance(content, tuple) and content and _is_block(place):
        inside = content[0].place.line == line and content[0].use is None
        return place._replace(end=first_row(content[0]).end if inside else place.start + 1)
    return place


def _is_block(place: Place) -> bool:
    return place.source.text[place.start : place.start + 1] not in {"{", "["}


def _end_of(key: Place) -> int:
    return key.end + 1
