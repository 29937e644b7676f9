"""Syntax errors: each in plain words, at the place where the mistake is."""

from __future__ import annotations

import pytest

from labctl.document import parse
from tests.document.marks import fault, marked

CASES = [
    ("a: [1, 2\nb: 3\n", "LAB004", 1, 4, "this `[` is never closed"),
    ("a: [1, 2\n", "LAB004", 1, 4, "this `[` is never closed"),
    ("a: 1\nb: [\n", "LAB004", 2, 4, "this `[` is never closed"),
    ("a: {\n\n", "LAB004", 1, 4, "this `{` is never closed"),
    ("a: [x, {b: 'y', \n", "LAB004", 1, 8, "this `{` is never closed"),
    ("a: {b: 1\n\n\nc: 2\n", "LAB004", 1, 4, "this `{` is never closed"),
    ("a: {b: 1 c: 2}\n", "LAB004", 1, 11, "expected `,` or `}` here"),
    ("a: 'x\nb: 3\n", "LAB004", 1, 4, "this quote is never closed"),
    ('a:\n  b: "x\n', "LAB004", 2, 6, "this quote is never closed"),
    ("a:\n\tb: 1\n", "LAB005", 2, 1, "a tab in the indentation"),
    ("a:\n  b: 1\n \tc: 1\n", "LAB005", 3, 2, "a tab in the indentation"),
    ("a: b: c\n", "LAB004", 1, 5, "a second `key:` on the same line"),
    ("a: 1\n  b: 2\n", "LAB004", 2, 4, "a `key:` where the value above it is still going on"),
    ('a: "\\m"\n', "LAB004", 1, 5, "`\\m` is not an escape that YAML knows in double quotes"),
    ('a: "\\xqq"\n', "LAB004", 1, 7, "this escape stands for no character"),
    ("a: @x\n", "LAB004", 1, 4, "unquoted text cannot start with `@`"),
    ("a: `x`\n", "LAB004", 1, 4, "unquoted text cannot start with ```"),
    ("a: %x\n", "LAB004", 1, 4, "unquoted text cannot start with `%`"),
    ("a:\n  b: 1\n c: 2\n", "LAB004", 3, 2, "the indentation of this line fits nothing above it"),
    ("a: 'b' c\n", "LAB004", 1, 8, "more text after the end of the value"),
    ("a: 1\n}\n", "LAB004", 2, 1, "this `}` closes nothing"),
    ("- a\nb: 1\n", "LAB004", 2, 1, "the indentation of this line fits nothing above it"),
    ("lab:sample\nhosts:\n", "LAB004", 1, 1, "a space is missing behind the colon"),
    ("a:\n  - b:1\n    c: 2\n", "LAB004", 2, 5, "a space is missing behind the colon"),
    ("a: 1\nb:2\nc: 3\n", "LAB004", 2, 1, "a space is missing behind the colon"),
    ("a: 1\nfoo\nb: 2\n", "LAB004", 2, 1, "`foo` is not followed by a `:`"),
    ("a: - b\n", "LAB004", 1, 4, "a list cannot start on the line of its key"),
    ("a: ]\n", "LAB004", 1, 4, "expected a value here, not `]`"),
    ("a: !foo!bar x\n", "LAB008", 1, 4, "a tag that nothing declares"),
    ("a: |x\n b\n", "LAB004", 1, 5, "text behind the `|` or `>` that opens a block of text"),
    ("a: &\n", "LAB004", 1, 5, "an anchor or alias needs a name of letters, digits, `-` and `_`"),
    ("a: 1\n...\nb: 2\n", "LAB009", 3, 1, "a second YAML document starts here"),
    ("%YAML 3.0\n---\na: 1\n", "LAB008", 1, 1, "labctl reads YAML 1.2"),
    ("a: ? b\n", "LAB004", 1, 4, "`? ` starts a key that is no plain name"),
]


@pytest.mark.parametrize(("text", "code", "line", "column", "summary"), CASES, ids=[c[4] + repr(c[0]) for c in CASES])
def test_syntax_errors(text: str, code: str, line: int, column: int, summary: str) -> None:
    result = parse(text, "lab.yaml")
    assert result.value is None or not result.ok
    last = result.diagnostics[-1]
    assert (*fault(last)[:3], last.summary) == (code, line, column, summary)


def test_a_quote_that_another_quote_closed_is_pointed_out() -> None:
    (error,) = parse('a: "x\nb: "y"\n', "lab.yaml").diagnostics
    (related,) = error.related
    assert "is its closing quote missing?" in related.message
    assert related.span is not None
    assert (related.span.line, related.span.column, marked(related.span)) == (1, 4, '"')


def test_what_was_found_before_a_syntax_error_is_kept() -> None:
    codes = [d.code for d in parse("a: 1\na: 2\nb: *nope\nc: [\n", "lab.yaml").diagnostics]
    assert codes == ["LAB006", "LAB011", "LAB004"]


@pytest.mark.parametrize(("text", "code", "line"), [(c[0], c[1], c[2]) for c in CASES])
def test_long_files_hear_the_same_from_the_quick_scanner(
    text: str, code: str, line: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("labctl.document.parser.SLOW_CHARACTERS", 0)
    last = parse(text, "lab.yaml").diagnostics[-1]
    assert fault(last)[:2] == (code, line)
    assert not last.summary.startswith("not valid YAML")
