"""Documents in tests: parse one, and cut out of its text what a span covers."""

from __future__ import annotations

from labctl.diagnostics import Diagnostic, Span
from labctl.document import Document, parse


def read(text: str, file: str = "lab.yaml") -> Document:
    """Return the document of a text without errors."""
    result = parse(text, file)
    assert result.ok, result.diagnostics
    assert result.value is not None
    return result.value


def faults(text: str) -> list[tuple[str, int, int, str]]:
    """Return code, line, column and marked text of everything wrong with a text."""
    return [fault(d) for d in parse(text, "lab.yaml").diagnostics]


def fault(diagnostic: Diagnostic) -> tuple[str, int, int, str]:
    """Return code, line, column and marked text of one diagnostic."""
    span = diagnostic.span
    assert span is not None, diagnostic
    return diagnostic.code, span.line, span.column, marked(span)


def marked(span: Span | None) -> str:
    """Return the text that the carets stand under."""
    assert span is not None
    return span.source[span.column - 1 : span.end_column - 1]
