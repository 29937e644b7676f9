"""Parser events → located tree, with limits, merge keys and everything YAML allows that a lab does not."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    NodeEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
    StreamEndEvent,
)

from labctl.diagnostics import Diagnostic, Related, Severity
from labctl.document.nodes import Entry, Node, Scalar
from labctl.document.scalars import NumberError, is_octal_like, resolve
from labctl.document.source import Place, Source

MAX_DEPTH: Final = 64
MAX_NODES: Final = 1_000_000
"""Most values in one file, and most values after every alias is written out."""

_Base = tuple[Place, Mapping[str, Entry]]
"""The entries that a merge key brings in, and where it stands."""

_ONE: Final = "one file holds one lab: delete this document, or put it into a file of its own"
_RENAME: Final = "give one of the two another name"
_PROPERTIES: Final = re.compile(r"(?:[&!]\S*(?:\s+(?:#[^\n]*\n\s*)*)?)*")
_NAME: Final = re.compile(r"[&*][A-Za-z0-9_-]+(?=[\s,\[\]{}]|\Z)")
_TAG: Final = re.compile(r"!(?:<[^>\s]*>|[^\s,\[\]{}]*)")
_CONTROL: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")


class Abandoned(Exception):  # noqa: N818 - control flow inside this package, never seen outside
    """Reading on makes no sense."""

    def __init__(self, diagnostic: Diagnostic) -> None:
        self.diagnostic = diagnostic
        super().__init__(diagnostic.summary)


class Builder:
    """Builds the tree of one document.

    Attributes:
        found: what was wrong so far.
        open_brackets: where the brackets opened that are still open.
        last_quoted: the last quoted text that runs over several lines: a likely unclosed quote.
    """

    def __init__(self, source: Source) -> None:
        self.found: list[Diagnostic] = []
        self.open_brackets: list[int] = []
        self.last_quoted: Place | None = None
        self._source = source
        self._anchors: dict[str, Node | None] = {}
        self._places: dict[str, Place] = {}
        self._count = 0

    def document(self, events: Iterator[Event]) -> Node | None:
        """Return the top mapping; None (and a diagnostic) when there is none. Abandoned when a limit is passed."""
        root: Node | None = None
        documents = 0
        for event in events:
            if isinstance(event, DocumentStartEvent):
                documents += 1
                self._start_document(event, documents)
            elif isinstance(event, NodeEvent):
                root = self._node(event, events, depth=1)
            elif isinstance(event, StreamEndEvent):
                break
        return self._checked_root(root)

    def _start_document(self, event: DocumentStartEvent, number: int) -> None:
        if number > 1:
            raise Abandoned(self._error("LAB009", "a second YAML document starts here", self._place(event), hint=_ONE))
        if event.version is not None and tuple(event.version) != (1, 2):
            summary = f"labctl reads YAML 1.2, not {'.'.join(map(str, event.version))}"
            place = Place(self._source, 0, self._source.text.find("\n") % (len(self._source.text) + 1))
            self.found.append(self._error("LAB008", summary, place, hint="delete the `%YAML` line"))

    def _checked_root(self, root: Node | None) -> Node | None:
        if root is None or (root.content is None and root.place.start == root.place.end):
            hint = "start with `lab: my-lab`, or run `labctl init DIR` for a complete lab"
            place = Place(self._source, 0, 0)
            self.found.append(self._error("LAB010", "the file is empty", place, hint=hint))
            return None
        if not isinstance(root.content, Mapping):
            summary = f"the top of a lab is a mapping (`lab: …`, `hosts: …`), not {_kind(root)}"
            hint = "start with `lab: my-lab`; lists and texts have their place below the keys"
            self.found.append(self._error("LAB010", summary, root.place._replace(end=root.place.start + 1), hint=hint))
            return None
        return root

    def _node(self, event: Any, events: Iterator[Event], depth: int) -> Node:
        self._count += 1
        if self._count > MAX_NODES:
            summary, hint = f"more than {MAX_NODES:,} values in one file", "check that this is the file you meant"
            raise Abandoned(self._error("LAB003", summary, self._place(event), hint=hint))
        if depth > MAX_DEPTH:
            summary = f"nested deeper than {MAX_DEPTH} levels"
            raise Abandoned(self._error("LAB003", summary, self._place(event), hint="no part of a lab is that deep"))
        if isinstance(event, AliasEvent):
            return self._alias(event)
        self._check_tag(event)
        self._open_anchor(event)
        bracket = bool(getattr(event, "flow_style", False))
        if bracket:
            self.open_brackets.append(event.end_mark.index - 1)
        node = self._content(event, events, depth)
        if bracket:
            self.open_brackets.pop()
        if node.size > MAX_NODES:
            summary = f"the aliases in this value stand for more than {MAX_NODES:,} values"
            raise Abandoned(self._error("LAB003", summary, self._place(event), hint="write fewer aliases of aliases"))
        if event.anchor:
            self._anchors[event.anchor] = node
        return node

    def _content(self, event: Any, events: Iterator[Event], depth: int) -> Node:
        if isinstance(event, ScalarEvent):
            return self._scalar(event)
        if isinstance(event, SequenceStartEvent):
            return self._sequence(event, events, depth)
        return self._mapping(event, events, depth)

    def _scalar(self, event: ScalarEvent) -> Node:
        place = self._place(event)
        text: str = event.value
        if event.style:
            if event.style in "'\"" and place.line != self._source.line_of(place.end):
                self.last_quoted = place
            self._check_escapes(text, place)
            return Node(place, text)
        return Node(place, self._resolve(text, place))

    def _resolve(self, text: str, place: Place) -> Scalar:
        try:
            value = resolve(text)
        except NumberError:
            shown = text if len(text) < 20 else f"{text[:20]}…"
            self.found.append(self._error("LAB016", f"`{shown}` is not a number that labctl can work with", place))
            return None
        if isinstance(value, int) and is_octal_like(text):
            hint = f"write `{value}`, or quote it if it is text"
            summary = f"`{text}` starts with 0: it is read as {value}, other YAML readers take it for octal"
            self.found.append(self._error("LAB013", summary, place, hint=hint, severity=Severity.WARNING))
        return value

    def _check_escapes(self, text: str, place: Place) -> None:
        match = _CONTROL.search(text)
        if match:
            summary = f"this text holds a control character, U+{ord(match.group()):04X}"
            self.found.append(self._error("LAB002", summary, place, hint="leave the escape out"))

    def _sequence(self, event: Any, events: Iterator[Event], depth: int) -> Node:
        items: list[Node] = []
        for child in events:
            if isinstance(child, SequenceEndEvent):
                break
            items.append(self._node(child, events, depth + 1))
        else:  # pragma: no cover - the parser always closes what it opened
            child = event
        end = child.end_mark.index if event.flow_style else max((_end(i) for i in items), default=event.end_mark.index)
        return Node(self._place(event, end), tuple(items), 1 + sum(i.size for i in items))

    def _mapping(self, event: Any, events: Iterator[Any], depth: int) -> Node:
        own: dict[str, Entry] = {}
        bases: list[_Base] = []
        end = event.end_mark.index
        for child in events:
            if isinstance(child, MappingEndEvent):
                end = child.end_mark.index if event.flow_style else end
                break
            key, place = self._key(child, events, depth)
            value = self._node(next(events), events, depth + 1)
            if value.content is None and value.place.start == value.place.end:
                value = replace(value, place=place._replace(start=place.end))  # scanners put it at different places
            end = max(end, place.end, _end(value))
            if key == "<<" and not child.style:
                bases += self._bases(place, value, merged=bool(bases))
            elif key is not None:
                self._add(own, key, Entry(place, value))
        entries = self._merge(own, bases) if bases else own
        return Node(self._place(event, end), entries, 1 + sum(e.value.size for e in entries.values()))

    def _key(self, event: Any, events: Iterator[Event], depth: int) -> tuple[str | None, Place]:
        """Return a key and its place; None (and a diagnostic) when it is not text."""
        place = self._place(event)
        if not isinstance(event, ScalarEvent):
            node = self._node(event, events, depth + 1)
            summary = (
                "an alias cannot be a key" if isinstance(event, AliasEvent) else f"a key is text, not {_kind(node)}"
            )
            self.found.append(self._error("LAB007", summary, place))
            return None, place
        self._count += 1
        self._check_tag(event)
        self._open_anchor(event)
        node = self._scalar(event)
        if event.anchor:
            self._anchors[event.anchor] = node
        if isinstance(node.content, str):
            return node.content, place
        hint = f'write `"{event.value}":`' if event.value else "write the key before the `:`"
        summary = f"the key `{event.value}` is {_kind(node)}, not text" if event.value else "a key is missing"
        self.found.append(self._error("LAB007", summary, place, hint=hint))
        return None, place

    def _add(self, own: dict[str, Entry], key: str, entry: Entry) -> None:
        first = own.setdefault(key, entry)
        if first is entry:
            return
        related = (Related("first written here", span=first.key.span()),)
        diagnostic = self._error("LAB006", f"`{key}` is written twice", entry.key, hint="keep one of the two")
        self.found.append(_with_related(diagnostic, related))

    def _bases(self, place: Place, value: Node, *, merged: bool) -> list[_Base]:
        """Return the entries that a merge key brings in, those of the first mapping first."""
        if merged:
            hint = "write one `<<: [*first, *second]`"
            self.found.append(self._error("LAB012", "a second `<<` in the same mapping", place, hint=hint))
        nodes = value.content if isinstance(value.content, tuple) else (value,)
        bases: list[_Base] = []
        for node in nodes:
            if isinstance(node.content, Mapping):
                at = node.use.place if node.use else (value.use.place if value.use else place)
                bases.append((at, node.content))
            else:
                summary = f"`<<` merges mappings, not {_kind(node)}"
                at = node.use.place if node.use else node.place
                self.found.append(self._error("LAB012", summary, at, hint="write `<<: *name` of an anchored mapping"))
        return bases

    def _merge(self, own: dict[str, Entry], bases: list[_Base]) -> dict[str, Entry]:
        """Return inherited entries (the first base wins), then the mapping's own, which win over all."""
        merged: dict[str, Entry] = {}
        for place, entries in bases:
            self._count += len(entries)
            if self._count > MAX_NODES:
                raise Abandoned(self._error("LAB003", f"merge keys make more than {MAX_NODES:,} values", place))
            for key, entry in entries.items():
                if key not in own:
                    merged.setdefault(key, entry.inherited_at(place))
        return merged | own

    def _alias(self, event: AliasEvent) -> Node:
        place = self._place(event)
        self._check_name(event)
        name: str = event.anchor
        node = self._anchors.get(name)
        if node is not None:
            return node.used_at(place)
        if name in self._anchors:
            summary = f"`*{name}` is used inside the value that it stands for"
            self.found.append(self._error("LAB011", summary, place, hint="write the value out, or name another anchor"))
            return Node(place, None)
        close = difflib.get_close_matches(name, self._anchors, n=1)
        hint = f"did you mean `*{close[0]}`?" if close else f"write `&{name}` before the value that it stands for"
        self.found.append(self._error("LAB011", f"no anchor `&{name}` above this line", place, hint=hint))
        return Node(place, None)

    def _open_anchor(self, event: Any) -> None:
        name = event.anchor
        if not name:
            return
        self._check_name(event)
        if name in self._anchors:
            summary = f"the anchor `&{name}` is set a second time; aliases below mean this one"
            diagnostic = self._error("LAB014", summary, self._place(event), severity=Severity.WARNING, hint=_RENAME)
            related = (Related("first set here", span=self._places[name].span()),)
            self.found.append(_with_related(diagnostic, related))
        self._anchors[name] = None
        self._places[name] = self._place(event)

    def _check_name(self, event: Any) -> None:
        """Refuse names that YAML readers end at different places, e.g. ``&a:b`` and ``*chat.``."""
        start = self._source.text.find("*" if isinstance(event, AliasEvent) else "&", event.start_mark.index)
        if not _NAME.match(self._source.text, start):
            summary = "the name of an anchor or alias is letters, digits, `-` and `_`, with a space behind it"
            self.found.append(self._error("LAB011", summary, Place(self._source, start, start + 1)))

    def _check_tag(self, event: Any) -> None:
        if event.tag is None:
            return
        summary = f"the tag `{_tag(event)}` has no meaning in a lab"
        hint = "delete it; to make a number or `true` text, put it in quotes"
        start: int = event.start_mark.index
        match = _TAG.search(self._source.text, start)
        place = Place(self._source, *match.span()) if match else self._place(event)
        self.found.append(self._error("LAB008", summary, place, hint=hint))

    def _place(self, event: Any, end: int | None = None) -> Place:
        start: int = event.start_mark.index
        if end is None:
            end = event.end_mark.index
        if getattr(event, "anchor", None) and not isinstance(event, AliasEvent):
            start = min(_skip_properties(self._source.text, start), max(start, end - 1))
        return Place(self._source, start, max(start, end))

    def _error(
        self, code: str, summary: str, place: Place, *, hint: str = "", severity: Severity = Severity.ERROR
    ) -> Diagnostic:
        return Diagnostic(code=code, summary=summary, severity=severity, span=place.span(), hint=hint)


def _skip_properties(text: str, start: int) -> int:
    """Return the offset behind an anchor or tag, where the value itself starts."""
    match = _PROPERTIES.match(text, start)
    return match.end() if match else start


def _end(node: Node) -> int:
    return node.use.place.end if node.use else node.place.end


def _kind(node: Node) -> str:
    match node.content:
        case None:
            return "nothing"
        case bool():
            return "true or false"
        case int() | float():
            return "a number"
        case str():
            return "text"
        case tuple():
            return "a list"
        case _:
            return "a mapping"


def _tag(event: Any) -> str:
    return str(event.tag).replace("tag:yaml.org,2002:", "!!")


def _with_related(diagnostic: Diagnostic, related: tuple[Related, ...]) -> Diagnostic:
    return replace(diagnostic, related=related)
