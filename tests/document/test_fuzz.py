"""Whatever the text: a result, with places inside the text; and both of ruamel's scanners agree."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from labctl.diagnostics import At, DocPath
from labctl.document import parse
from labctl.document.build import Abandoned, Builder
from labctl.document.nodes import plain
from labctl.document.parser import _quick_events
from labctl.document.read import decode
from labctl.document.source import Source
from labctl.views.diagnostics import render_diagnostics, to_json
from tests.document.test_values import LAB, MERGES

PIECES = st.sampled_from(
    ["{", "}", "[", "]", ":", ": ", "- ", "\n", "\t", "'", '"', "&a ", "*a", "<<: *a", "|", "> ", "#", " #", "!x ", "%",
     "@", "`", "\\", "\\u", "? ", "---", "...", "\r", "\r\n", "\0", "é", "日", "~", "012", "\ud800", ",", "  ", "\x85",
     "a:b", "://", "\ue000", "true", "1e999", "&a:b "]
)  # fmt: skip


@st.composite
def mutated(draw: st.DrawFn) -> str:
    """Draw a lab with a few pieces of YAML put in at random, or in place of something."""
    text = draw(st.sampled_from([LAB, MERGES, ""]))
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, len(text)))
        text = text[:at] + draw(PIECES) + text[at + draw(st.sampled_from([0, 0, 1, 3, 40])) :]
    return text


def check(text: str) -> None:
    result = parse(text, "lab.yaml")
    lines = text.count("\n") + text.count("\r") + 1
    for diagnostic in result.diagnostics:
        assert diagnostic.span is None or 1 <= diagnostic.span.line <= lines
    assert result.value is not None or any(d.is_error for d in result.diagnostics)
    render_diagnostics(result.diagnostics)
    to_json(result.diagnostics)
    if result.value is not None:
        for path in paths(result.value.data):
            assert result.value.span(path) is not None
            assert result.value.span(path, At.KEY) is not None


def paths(value: Any, path: DocPath = ()) -> list[DocPath]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(below for key, inner in items for below in paths(inner, (*path, key)))]


@given(st.text())
def test_any_text(text: str) -> None:
    check(text)


@given(st.text(alphabet="{}[]:-&*<|>!%@`#'\"\\ \n\tab?,.~0", max_size=30))
def test_any_punctuation(text: str) -> None:
    check(text)


@given(mutated())
@settings(max_examples=200, deadline=None)
def test_mutated_labs(text: str) -> None:
    check(text)


@given(st.binary())
def test_any_bytes(data: bytes) -> None:
    decode(data, "lab.yaml")


def built(text: str, *, pure: bool) -> Any:
    builder = Builder(Source("lab.yaml", text))
    try:
        root = builder.document(YAML(typ="safe", pure=True).parse(text) if pure else _quick_events(text))
    except (YAMLError, Abandoned, UnicodeEncodeError):
        return None
    return None if builder.found or root is None else (plain(root), root.place[1:])


@given(mutated())
@settings(max_examples=200, deadline=None)
def test_both_scanners_read_the_same(text: str) -> None:
    pytest.importorskip("_ruamel_yaml", reason="ruamel.yaml.clib is not installed: only one scanner to test")
    quick, slow = built(text, pure=False), built(text, pure=True)
    if quick is not None and slow is not None:
        assert quick == slow
