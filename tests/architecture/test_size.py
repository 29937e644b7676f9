"""Small modules, small functions: one outlier is what people remember."""

from __future__ import annotations

from pathlib import Path
from statistics import median

import pytest

from tests.architecture.source import PACKAGE, functions, length, modules

MODULE_LINES = 400
FUNCTION_LINES = 50
MEDIAN_LINES = 12


@pytest.mark.parametrize("module", modules(), ids=str)
def test_module(module: Path) -> None:
    lines = len((PACKAGE / module).read_text(encoding="utf-8").splitlines())
    assert lines <= MODULE_LINES, f"{module} has {lines} lines: find the second thing in it, and give it a module"


@pytest.mark.parametrize("module", modules(), ids=str)
def test_functions(module: Path) -> None:
    long = {f.name: length(f) for f in functions(module) if length(f) > FUNCTION_LINES}
    assert not long, f"{module}: longer than {FUNCTION_LINES} lines: {long}"


def test_the_median_function() -> None:
    lengths = [length(f) for m in modules() for f in functions(m)]
    assert median(lengths) < MEDIAN_LINES
