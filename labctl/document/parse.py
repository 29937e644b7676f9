"""Text → Document: everything wrong with the text as diagnostics, never as an exception."""

from __future__ import annotations

import re
from typing import Final

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.reader import ReaderError

from labctl.diagnostics import Diagnostic, Result
from labctl.document.build import Abandoned, Builder
from labctl.document.document import Document
from labctl.document.nodes import Node
from labctl.document.source import Source
from labctl.document.syntax import explain_syntax

MAX_CHARACTERS: Final = 4 << 20
"""Longest text that is parsed; the largest labs imaginable stay below a tenth of it."""

_FORBIDDEN: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff\ud800-\udfff]")
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
    """Read with the C scanner; what it rejects is decided by the pure one.

    The C scanner is YAML 1.1's: it is twenty times faster, and refuses a `:` inside plain text in braces (`{gguf: hf://…}`).
    """
    quick = _compose_with(source, YAML(typ="safe"))
    return quick if quick is not None else (_compose_with(source, YAML(typ="safe", pure=True)) or (None, ()))


def _compose_with(source: Source, yaml: YAML) -> tuple[Node | None, tuple[Diagnostic, ...]] | None:
    """Return the root and the problems; None when a C scanner rejects the syntax."""
    builder = Builder(source)
    root: Node | None = None
    try:
        root = builder.document(yaml.parse(source.text))
    except Abandoned as stop:
        builder.found.append(stop.diagnostic)
    except (MarkedYAMLError, ReaderError) as error:
        if not yaml.pure:
            return None
        builder.found.append(explain_syntax(source, error, builder.last_quoted))
    except YAMLError as error:
        builder.found.append(Diagnostic(code="LAB004", summary=f"not valid YAML: {error}", span=source.span(0, 1)))
    return root, tuple(builder.found)
