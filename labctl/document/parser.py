"""Text → Document: everything wrong with the text as diagnostics, never as an exception."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.events import ScalarEvent

from labctl.diagnostics import Diagnostic, Result
from labctl.document.build import Abandoned, Builder
from labctl.document.document import Document
from labctl.document.nodes import Node
from labctl.document.source import Source
from labctl.document.syntax import explain_syntax

MAX_CHARACTERS: Final = 4 << 20
"""Longest text that is parsed; the largest labs imaginable stay below a tenth of it."""

SLOW_CHARACTERS: Final = 200_000
"""Longest text that is given to the pure scanner, which reads some 80 000 characters in a second."""

_FORBIDDEN: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff\ud800-\udfff]")
_INNER_COLON: Final = re.compile(r"""(?<=[^\s\[\]{},"']):(?=[^\s\[\]{},])""")
_STAND_IN: Final = "\ue000"
_BOM: Final = "\ufeff"


def parse(text: str, file: str) -> Result[Document]:
    """Parse one YAML 1.2 document whose top is a mapping.

    Args:
        text: the whole file. A byte order mark at its start and CRLF line ends are fine.
        file: its name, for the spans.

    Returns:
        The document and all that was found. After a syntax error there is no document; after an error that leaves the
        rest readable (a duplicate key, a tag) there is one, so that later stages can find more.
    """
    source = Source(file, text.removeprefix(_BOM))
    refused = _check_text(source)
    if refused:
        return Result(None, (refused,))
    root, diagnostics = _compose(source)
    if root is None:
        return Result(None, diagnostics)
    return Result(Document(root, file), diagnostics)


def too_large(file: str, size: str) -> Diagnostic:
    """Return the diagnostic for a file beyond the limit."""
    limit = f"{MAX_CHARACTERS >> 20} MiB"
    hint = "check that this is the file you meant; large data belongs beside lab.yaml, not into it"
    return Diagnostic(code="LAB003", summary=f"`{file}` is {size}; a lab may be at most {limit}", hint=hint)


def _check_text(source: Source) -> Diagnostic | None:
    if len(source.text) > MAX_CHARACTERS:
        return too_large(source.file, f"{len(source.text):,} characters long")
    first = _FORBIDDEN.search(source.text)
    if first is None:
        return None
    more = sum(1 for _ in _FORBIDDEN.finditer(source.text)) - 1
    return Diagnostic(
        code="LAB002",
        summary=f"the file holds a character that is not text, U+{ord(first.group()):04X}",
        detail=f"and {more} more of the kind" if more else "",
        span=source.span(first.start(), first.end()),
        hint="delete the character; inside double quotes it can be written as an escape such as `\\u2028`",
    )


def _compose(source: Source) -> tuple[Node | None, tuple[Diagnostic, ...]]:
    """Read with the C scanner, twenty times faster; what it rejects is decided and explained by the pure one.

    It stays with the C scanner's word for texts that the pure one would take many seconds for.
    """
    builder = Builder(source)
    try:
        return builder.document(_quick_events(source.text)), tuple(builder.found)
    except Abandoned as stop:
        return None, (*builder.found, stop.diagnostic)
    except YAMLError as error:
        return _rejected(builder, source, error) if len(source.text) > SLOW_CHARACTERS else _compose_slowly(source)


def _compose_slowly(source: Source) -> tuple[Node | None, tuple[Diagnostic, ...]]:
    builder = Builder(source)
    try:
        return builder.document(YAML(typ="safe", pure=True).parse(source.text)), tuple(builder.found)
    except Abandoned as stop:
        return None, (*builder.found, stop.diagnostic)
    except YAMLError as error:
        return _rejected(builder, source, error)


def _rejected(builder: Builder, source: Source, error: YAMLError) -> tuple[None, tuple[Diagnostic, ...]]:
    bracket = builder.open_brackets[-1] if builder.open_brackets else None
    return None, (*builder.found, explain_syntax(source, error, bracket, builder.last_quoted))


def _quick_events(text: str) -> Iterator[Any]:
    """Yield the C scanner's events.

    It is YAML 1.1's and refuses in braces what 1.2 allows, a colon within a word: ``{gguf: hf://…}``, ``{image: a:1}``.
    A stand-in of the same length takes the colon's place while it reads.
    """
    shifted = _INNER_COLON.sub(_STAND_IN, text) if _STAND_IN not in text else text
    for event in YAML(typ="safe").parse(shifted):
        if isinstance(event, ScalarEvent) and _STAND_IN in event.value and shifted is not text:
            event.value = event.value.replace(_STAND_IN, ":")
        yield event
