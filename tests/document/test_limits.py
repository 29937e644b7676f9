"""Files that are too much: refused early, whatever they would expand to."""

from __future__ import annotations

import subprocess
import sys
from types import FrameType

import pytest

from labctl.diagnostics import Diagnostic
from labctl.document import parse
from labctl.document.build import MAX_DEPTH
from labctl.document.parser import MAX_CHARACTERS
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


def calls(text: str) -> int:
    """Return how many Python functions a parse calls: its cost, without a clock."""
    count = 0

    def tick(_frame: FrameType, event: str, _argument: object) -> None:
        nonlocal count
        count += event == "call"

    sys.setprofile(tick)
    try:
        parse(text, "lab.yaml")
    finally:
        sys.setprofile(None)
    return count


def deployments(number: int) -> str:
    shared = "x-d: &d {engine: llama.cpp, context: 8192, on: {host: ash, gpus: [0, 1]}}\ndeployments:\n"
    return shared + "".join(f"  d{i}: {{<<: *d, model: hf://a/b{i}, serves: [s-{i}]}}\n" for i in range(number))


def test_the_cost_is_linear() -> None:
    pytest.importorskip("_ruamel_yaml", reason="ruamel.yaml.clib is not installed: the pure scanner's cost is its own")
    small, large = calls(deployments(500)), calls(deployments(2000))
    assert 3.5 < large / small < 4.1
    assert large / 2000 < 250


def test_an_error_in_a_long_file_is_found_by_the_quick_scanner() -> None:
    pytest.importorskip("_ruamel_yaml", reason="ruamel.yaml.clib is not installed: there is no quick scanner")
    text = deployments(4000) + "x: [1\n"
    assert calls(text) < 250 * 4000
    (error,) = parse(text, "lab.yaml").diagnostics
    assert error.summary == "this `[` is never closed"


def test_the_pure_scanner_alone_will_do() -> None:
    code = (
        "import sys; sys.modules['_ruamel_yaml'] = None\n"
        "from ruamel.yaml.main import CParser; assert CParser is None\n"
        "from labctl.document import parse; print(parse(sys.argv[1], 'f').value.data)"
    )
    text = "a: {b: hf://x, c: &c [1, d:e]}\nf: *c\n"
    done = subprocess.run([sys.executable, "-c", code, text], capture_output=True, text=True, check=True)
    assert done.stdout == f"{read(text).data}\n"
