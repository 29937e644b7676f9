"""Files that are too much: refused early, whatever they would expand to."""

from __future__ import annotations

import pytest

from labctl.diagnostics import Diagnostic
from labctl.document import parse
from labctl.document.build import MAX_DEPTH
from labctl.document.parse import MAX_CHARACTERS
from tests.document.marks import read


def only(text: str) -> Diagnostic:
    result = parse(text, "lab.yaml")
    assert result.value is None
    (diagnostic,) = result.diagnostics
    return diagnostic


def test_depth() -> None:
    inner = MAX_DEPTH - 2
    read(f"a: {'[' * inner}1{']' * inner}\n")
    deep = only(f"a: {'[' * (inner + 1)}1{']' * (inner + 1)}\n")
    assert (deep.code, deep.summary) == ("LAB003", "nested deeper than 64 levels")


@pytest.mark.parametrize("opening", ["[", "{a: ", "- ", "? "])
def test_depth_beyond_every_stack(opening: str) -> None:
    result = parse(opening * 100_000, "lab.yaml")
    assert result.value is None
    assert [d.code for d in result.diagnostics] == ["LAB003"]


def test_aliases_of_aliases() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 30)]
    laughs = only("\n".join(lines))
    assert laughs.code == "LAB003"
    assert laughs.span is not None
    assert laughs.span.line == 6


def test_merge_keys_of_merge_keys() -> None:
    keys = ", ".join(f"k{i}: 1" for i in range(2000))
    lines = [f"base: &base {{{keys}}}"] + [f"m{i}: {{<<: *base}}" for i in range(600)]
    assert only("\n".join(lines)).code == "LAB003"


def test_length() -> None:
    big = only("a: 1\n" * (MAX_CHARACTERS // 5 + 1))
    assert big.code == "LAB003"
    assert "at most 4 MiB" in big.summary


def test_a_line_of_a_megabyte() -> None:
    document = read(f"a: {'x' * 1_000_000}\nb: 1\n")
    span = document.span(("a",))
    assert span is not None
    assert span.end_column - span.column == 1_000_000
