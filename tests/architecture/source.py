"""The source of labctl as syntax trees, for the tests of this folder."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "labctl"

Function = ast.FunctionDef | ast.AsyncFunctionDef


@cache
def modules() -> tuple[Path, ...]:
    """Return every module of the package, relative to its folder."""
    return tuple(sorted(p.relative_to(PACKAGE) for p in PACKAGE.rglob("*.py")))


@cache
def tree(module: Path) -> ast.Module:
    """Return the syntax tree of a module."""
    return ast.parse((PACKAGE / module).read_text(encoding="utf-8"), str(module))


def functions(module: Path) -> Iterator[Function]:
    """Yield every function and method of a module, nested ones too."""
    return (node for node in ast.walk(tree(module)) if isinstance(node, Function))


def length(function: Function) -> int:
    """Return the lines of a function, without its decorators and its docstring."""
    last = function.end_lineno or function.lineno
    text = ast.get_docstring(function, clean=False)
    return last - function.lineno + 1 - (text.count("\n") + 1 if text is not None else 0)
