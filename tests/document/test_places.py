"""Where things are: the span of every path, of what is missing, and of what came by an alias or merge key."""

from __future__ import annotations

import pytest

from labctl.diagnostics import At, Diagnostic, DocPath, Related
from tests.document.marks import marked, read

LAB = """\
lab: x
hosts:
  ash: &host
    address: 10.0.0.1   # a comment
    gpus: [{model: P106, count: 8},
           {model: T4}]
    empty:
  bert: {<<: *host, address: 10.0.0.2}
list:
  - one
  - k: 1
    l: 2
text: |
  first
  second
alias: *host
"""


@pytest.mark.parametrize(
    ("path", "at", "line", "text"),
    [
        ((), At.VALUE, 1, "lab"),
        (("lab",), At.KEY, 1, "lab"),
        (("lab",), At.VALUE, 1, "x"),
        (("hosts", "ash"), At.KEY, 3, "ash"),
        (("hosts", "ash"), At.VALUE, 4, "address: 10.0.0.1"),
        (("hosts", "ash", "gpus"), At.VALUE, 5, "[{model: P106, count: 8},"),
        (("hosts", "ash", "gpus", 0), At.VALUE, 5, "{model: P106, count: 8}"),
        (("hosts", "ash", "gpus", 1, "model"), At.VALUE, 6, "T4"),
        (("hosts", "ash", "empty"), At.VALUE, 7, "empty"),
        (("list",), At.VALUE, 10, "- one"),
        (("list", 1), At.VALUE, 11, "k: 1"),
        (("text",), At.VALUE, 13, "|"),
        # What is not there: the key of the longest part that is.
        (("hosts", "ash", "memory"), At.VALUE, 3, "ash"),
        (("hosts", "carl", "gpus", 3), At.KEY, 2, "hosts"),
        (("hosts", "ash", "gpus", 7), At.VALUE, 5, "gpus"),
        (("hosts", "ash", "gpus", 0, "vram"), At.KEY, 5, "{model: P106, count: 8}"),
        (("models",), At.KEY, 1, "lab"),
        # One element where the schema also takes a list.
        (("hosts", "ash", 0, "address"), At.VALUE, 4, "10.0.0.1"),
        # Written elsewhere.
        (("hosts", "bert", "gpus", 0, "count"), At.VALUE, 5, "8"),
        (("hosts", "bert", "address"), At.VALUE, 8, "10.0.0.2"),
        (("alias",), At.KEY, 16, "alias"),
        (("alias",), At.VALUE, 4, "address: 10.0.0.1"),
    ],
)
def test_spans(path: DocPath, at: At, line: int, text: str) -> None:
    span = read(LAB).span(path, at)
    assert span is not None
    assert (span.line, marked(span)) == (line, text)


def located(path: DocPath, at: At = At.VALUE) -> Diagnostic:
    return read(LAB).locate(Diagnostic(code="LAB022", summary="s", path=path, at=at))


@pytest.mark.parametrize(
    ("path", "at", "notes"),
    [
        (("hosts", "bert", "gpus", 0, "count"), At.VALUE, [("inherited at line 8", "*host")]),
        (("hosts", "bert", "gpus"), At.KEY, [("inherited at line 8", "*host")]),
        (("hosts", "bert", "address"), At.VALUE, []),
        (("alias",), At.KEY, []),
        (("alias",), At.VALUE, [("used at line 16", "*host")]),
        (("alias", "address"), At.KEY, [("used at line 16", "*host")]),
        (("alias", "memory"), At.VALUE, []),
    ],
)
def test_where_a_value_is_used_is_said(path: DocPath, at: At, notes: list[tuple[str, str]]) -> None:
    diagnostic = located(path, at)
    assert [(r.message, marked(r.span)) for r in diagnostic.related] == notes


def test_locating_twice_changes_nothing() -> None:
    once = located(("alias", "address"))
    assert read(LAB).locate(once) == once


def test_related_places_are_located_and_foreign_ones_kept() -> None:
    related = (Related("the other", ("hosts", "bert")), Related("nowhere"))
    first, second = read(LAB).locate(Diagnostic(code="LAB054", summary="s", path=("lab",), related=related)).related
    assert first.span is not None
    assert first.span.line == 8
    assert second.span is None


def test_a_diagnostic_without_a_path_has_no_place() -> None:
    assert read(LAB).locate(Diagnostic(code="LAB001", summary="s")).span is None


def test_wide_characters_count_as_one_column() -> None:
    span = read("日本: {é😀: x}\n").span(("日本", "é😀"))
    assert span is not None
    assert (span.column, marked(span)) == (10, "x")


def test_line_separators_inside_quotes_do_not_shift_lines() -> None:
    span = read('a: "\\u2028"\r\nb: 1\rc: 2\n').span(("c",))
    assert span is not None
    assert (span.line, span.column) == (3, 4)
