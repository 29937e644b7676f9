"""Diagnostics as text with source lines and carets, and as JSON."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, Final

from labctl.diagnostics import Diagnostic, Related, Severity, Span
from labctl.values import dataclass

_WIDTH: Final = 140
"""Most characters of a source line that are shown."""
_BEFORE: Final = 60
_SENTENCE: Final = 600
"""Most characters of a sentence: it may quote a value of any length."""
_TAB: Final = "    "
_RESET: Final = "\x1b[0m"
_STYLES: Final = {
    "error": "\x1b[1;31m",
    "warning": "\x1b[1;33m",
    "note": "\x1b[1;36m",
    "hint": "\x1b[1;32m",
    "frame": "\x1b[1;34m",
    "bold": "\x1b[1m",
}


def render_diagnostics(diagnostics: Iterable[Diagnostic], *, colour: bool = False) -> str:
    """Return them all as text, ordered by position, with a closing line that counts them; empty for none."""
    ordered = in_order(diagnostics)
    if not ordered:
        return ""
    paint = _Paint(colour)
    return "\n\n".join([*(_render(d, paint) for d in ordered), paint("bold", count_line(ordered))])


def in_order(diagnostics: Iterable[Diagnostic]) -> tuple[Diagnostic, ...]:
    """Return them by file, line and column, those without a place first, without repetitions."""
    return tuple(sorted(dict.fromkeys(diagnostics), key=_position))


def count_line(diagnostics: Sequence[Diagnostic]) -> str:
    """Return e.g. ``3 errors, 1 warning in lab.yaml``."""
    counts = Counter(d.severity for d in diagnostics)
    parts = [f"{counts[s]} {s}{'s' if counts[s] > 1 else ''}" for s in Severity if counts[s]]
    files = sorted({d.span.file for d in diagnostics if d.span})
    return ", ".join(parts) + (f" in {_safe(', '.join(files))}" if files else "")


def to_json(diagnostics: Iterable[Diagnostic]) -> list[dict[str, Any]]:
    """Return them as JSON values, in the order of the text; lines and columns count from 1."""
    return [_json(d) for d in in_order(diagnostics)]


def _json(diagnostic: Diagnostic) -> dict[str, Any]:
    return {
        "code": diagnostic.code,
        "severity": str(diagnostic.severity),
        "summary": diagnostic.summary,
        "detail": diagnostic.detail,
        "path": None if diagnostic.path is None else list(diagnostic.path),
        "at": str(diagnostic.at),
        "span": _span_json(diagnostic.span),
        "label": diagnostic.label,
        "hint": diagnostic.hint,
        "related": [_related_json(related) for related in diagnostic.related],
    }


def _related_json(related: Related) -> dict[str, Any]:
    return {
        "message": related.message,
        "path": None if related.path is None else list(related.path),
        "span": _span_json(related.span),
    }


def _span_json(span: Span | None) -> dict[str, Any] | None:
    if span is None:
        return None
    return {
        "file": span.file,
        "line": span.line,
        "column": span.column,
        "end_line": span.end_line,
        "end_column": span.end_column,
        "source": span.source if len(span.source) <= _WIDTH * 4 else "",
    }


def _position(diagnostic: Diagnostic) -> tuple[bool, str, int, int, str, str]:
    span = diagnostic.span
    if span is None:
        return (False, "", 0, 0, diagnostic.code, diagnostic.summary)
    return (True, span.file, span.line, span.column, diagnostic.code, diagnostic.summary)


def _sentence(text: str) -> str:
    """Return a sentence without its middle where it is far too long."""
    half = _SENTENCE // 2
    return _safe(text if len(text) <= _SENTENCE else f"{text[:half]}…{text[-half:]}")


@dataclass(frozen=True, slots=True)
class _Paint:
    colour: bool

    def __call__(self, style: str, text: str) -> str:
        return f"{_STYLES[style]}{text}{_RESET}" if self.colour and text else text


def _render(diagnostic: Diagnostic, paint: _Paint) -> str:
    severity = str(diagnostic.severity)
    head = paint(severity, f"{severity}[{diagnostic.code}]")
    lines = [f"{head}{paint('bold', ': ' + _sentence(diagnostic.summary))}"]
    spans = [s for s in (diagnostic.span, *(r.span for r in diagnostic.related)) if s]
    margin = " " * max((len(str(s.line)) for s in spans), default=1)
    if diagnostic.span:
        lines += _snippet(diagnostic.span, diagnostic.label, margin, paint, mark="^", arrow="-->", style=severity)
    elif diagnostic.label:
        lines.append(f"{margin}{paint('frame', ' =')} {_safe(diagnostic.label)}")
    for related in diagnostic.related:
        lines += _related(related, margin, paint)
    lines += [f"{margin}{paint('frame', ' =')} {_safe(text)}" for text in diagnostic.detail.splitlines()]
    if diagnostic.hint:
        lines += [
            *([f"{margin}{paint('frame', ' |')}"] if spans else []),
            f"{paint('hint', 'hint:')} {_safe(diagnostic.hint)}",
        ]
    return "\n".join(line.rstrip() for line in lines)


def _related(related: Related, margin: str, paint: _Paint) -> list[str]:
    if related.span is None:
        return [f"{margin}{paint('frame', ' =')} {_safe(related.message)}"]
    return _snippet(related.span, related.message, margin, paint, mark="-", arrow=":::", style="frame")


def _snippet(span: Span, label: str, margin: str, paint: _Paint, *, mark: str, arrow: str, style: str) -> list[str]:
    """Return the place, the source line and the marks below it."""
    where = f"{_safe(span.file)}:{span.line}:{span.column}"
    lines = [f"{margin}{paint('frame', arrow)} {where}"]
    if not span.source.strip():
        return [*lines, *([f"{margin}{paint('frame', ' =')} {_safe(label)}"] if label else [])]
    source, before, marked = _window(span)
    marks = paint(style, f"{mark * max(1, marked)} {_safe(label)}".rstrip())
    bar = paint("frame", " |")
    number = paint("frame", str(span.line).rjust(len(margin)) + " |")
    return [*lines, f"{margin}{bar}", f"{number} {source}", f"{margin}{bar} {' ' * before}{marks}"]


def _window(span: Span) -> tuple[str, int, int]:
    """Return the visible part of a source line, and the cells before and under the marks."""
    source, start, end = span.source, span.column - 1, span.end_column - 1
    first = max(0, min(start - _BEFORE, len(source) - _WIDTH)) if len(source) > _WIDTH else 0
    shown = source[first : first + _WIDTH]
    cut, more = "…" if first else "", "…" if first + _WIDTH < len(source) else ""
    end = min(end, first + _WIDTH)
    before = len(cut) + _cells(source[first:start])
    return f"{cut}{_shown(shown)}{more}", before, _cells(source[start:end])


def _shown(text: str) -> str:
    return _safe(text.replace("\t", _TAB))


def _safe(text: str) -> str:
    """Replace what would move the cursor, colour the terminal or fail to encode."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else _escape(c) for c in text)


def _escape(character: str) -> str:
    if unicodedata.category(character) in {"Zs", "Zl", "Zp"}:
        return " "
    return {"\n": "⏎", "\t": " "}.get(character, "�")


def _cells(text: str) -> int:
    """Return the columns that a text takes on a terminal: wide characters two, combining ones none."""
    return sum(_cell(c) for c in text)


def _cell(character: str) -> int:
    if character == "\t":
        return len(_TAB)
    if unicodedata.combining(character) or unicodedata.category(character) == "Mn":
        return 0
    return 2 if unicodedata.east_asian_width(character) in {"W", "F"} else 1
