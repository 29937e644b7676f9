"""Every public thing says what it promises."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.architecture.source import Function, modules, tree

ENDS = (".", ":", "…", "?", "!", "`", ")")


def public(body: list[ast.stmt], prefix: str = "") -> Iterator[tuple[str, ast.ClassDef | Function]]:
    """Yield the public classes, functions and methods, with their names."""
    for node in body:
        if isinstance(node, ast.ClassDef | Function) and not node.name.startswith("_"):
            yield f"{prefix}{node.name}", node
            if isinstance(node, ast.ClassDef):
                yield from public(node.body, f"{node.name}.")


def overrides(node: ast.ClassDef | Function) -> bool:
    names = {ast.unparse(d).rpartition(".")[2] for d in node.decorator_list}
    return bool(names & {"override", "overload"})


@pytest.mark.parametrize("module", modules(), ids=str)
def test_docstrings(module: Path) -> None:
    bare = [name for name, node in public(tree(module).body) if not ast.get_docstring(node) and not overrides(node)]
    assert not bare, f"{module}: no docstring: {bare}"


@pytest.mark.parametrize("module", modules(), ids=str)
def test_modules_say_what_they_are_for(module: Path) -> None:
    text = ast.get_docstring(tree(module))
    assert text, f"{module} has no docstring"
    assert text.splitlines()[0].endswith(ENDS), f"{module}: its first line is no sentence"


@pytest.mark.parametrize("module", modules(), ids=str)
def test_nothing_is_left_to_do(module: Path) -> None:
    """No stub is called done: what is missing is a diagnostic, not a comment or an exception."""
    names = {n.id for n in ast.walk(tree(module)) if isinstance(n, ast.Name)}
    assert "NotImplementedError" not in names
    text = ast.unparse(tree(module))
    assert not [word for word in ("TODO", "FIXME", "XXX") if f" {word}" in text or f"'{word}" in text]
