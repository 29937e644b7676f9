"""Overlays: JSON Merge Patch, with every value keeping its own file and line."""

from __future__ import annotations

from typing import Any

import pytest

from labctl.diagnostics import Result
from labctl.document import Document, overlay
from tests.document.marks import fault, marked, read

BASE = """\
lab: x
hosts:
  ash: {address: 10.0.0.1, gpus: [1, 2]}
  bert: {address: 10.0.0.2}
"""


def laid(over: str, base: str = BASE) -> Result[Document]:
    return overlay(read(base), read(over, "lab.local.yaml"))


@pytest.mark.parametrize(
    ("over", "hosts"),
    [
        ("hosts: {ash: {address: localhost}}", {"ash": {"address": "localhost", "gpus": [1, 2]}, "bert": ...}),
        ("hosts: {ash: {gpus: [3]}}", {"ash": {"address": "10.0.0.1", "gpus": [3]}, "bert": ...}),
        ("hosts: {carl: {address: c}}", {"ash": ..., "bert": ..., "carl": {"address": "c"}}),
        ("hosts: {bert: null}", {"ash": ...}),
        ("hosts: {bert: }", {"ash": ...}),
        ("hosts: {bert: gone}", {"ash": ..., "bert": "gone"}),
        ("hosts: [1]", [1]),
        ("hosts: {}", {"ash": ..., "bert": ...}),
    ],
)
def test_merging(over: str, hosts: Any) -> None:
    base = read(BASE).data["hosts"]
    if isinstance(hosts, dict):
        hosts = {name: base[name] if value is ... else value for name, value in hosts.items()}
    result = laid(over)
    assert result.ok
    assert result.value is not None
    assert result.value.data == {"lab": "x", "hosts": hosts}


def test_every_value_keeps_its_own_file() -> None:
    document = laid("hosts:\n  ash: {address: localhost}\n").value
    assert document is not None
    new, old = document.span(("hosts", "ash", "address")), document.span(("hosts", "ash", "gpus"))
    assert new is not None
    assert old is not None
    assert (new.file, new.line, marked(new)) == ("lab.local.yaml", 2, "localhost")
    assert (old.file, old.line, marked(old)) == ("lab.yaml", 3, "[1, 2]")
    assert document.file == "lab.yaml"


def test_an_aliased_block_of_the_base_is_changed_only_where_the_overlay_says() -> None:
    document = laid("b: {k: 2}", "a: &a {k: 1}\nb: *a\n").value
    assert document is not None
    assert document.data == {"a": {"k": 1}, "b": {"k": 2}}


def test_removing_what_is_not_there_is_an_error() -> None:
    (error,) = laid("hosts:\n  brt:\n").diagnostics
    assert fault(error) == ("LAB015", 2, 3, "brt")
    assert error.hint == "did you mean `bert`?"


@pytest.mark.parametrize("over", ["services: {watchdog: }", "hosts: {watchdog: }"])
def test_an_empty_value_adds_nothing(over: str) -> None:
    (error,) = laid(over).diagnostics
    assert (error.code, error.hint) == ("LAB015", "to add it, write `watchdog: {}`")
