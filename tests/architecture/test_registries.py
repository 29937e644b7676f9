"""A registry names every module of its package, and every name leads somewhere."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Mapping
from typing import cast

import pytest

from tests.architecture.source import PACKAGE

AXES = {"engines": "ENGINES", "services": "SERVICES", "targets": "TARGETS", "gateways": "GATEWAYS"}


def registry(axis: str) -> Mapping[str, str]:
    return cast("Mapping[str, str]", getattr(importlib.import_module(f"labctl.{axis}"), AXES[axis]))


def offered(axis: str) -> set[str]:
    """Return the modules of a package that offer a member of the axis: an object with the axis's own name."""
    member = axis.removesuffix("s")
    return {
        f"labctl.{axis}.{path.stem if path.name != '__init__.py' else path.parent.name}"
        for path in (*(PACKAGE / axis).glob("*.py"), *(PACKAGE / axis).glob("*/__init__.py"))
        if path.parent != PACKAGE / axis or path.name != "__init__.py"
        if any(_binds(node, member) for node in ast.parse(path.read_text(encoding="utf-8")).body)
    }


def _binds(node: ast.stmt, name: str) -> bool:
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return any(isinstance(t, ast.Name) and t.id == name for t in targets)


@pytest.mark.parametrize("axis", AXES)
def test_every_module_is_registered(axis: str) -> None:
    registered = {place.partition(":")[0] for place in registry(axis).values()}
    assert registered == offered(axis)


@pytest.mark.parametrize(("axis", "name"), [(a, n) for a in AXES for n in registry(a)])
def test_every_name_leads_to_its_member(axis: str, name: str) -> None:
    package = importlib.import_module(f"labctl.{axis}")
    member = package.load(name)
    assert getattr(member, "name", name) == name


@pytest.mark.parametrize("axis", AXES)
def test_what_is_to_come_is_not_there_yet(axis: str) -> None:
    coming = getattr(importlib.import_module(f"labctl.{axis}"), "COMING", {})
    assert not set(coming) & set(registry(axis))
