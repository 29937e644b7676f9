"""Every table of facts names its source, row by row."""

from __future__ import annotations

import csv
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.architecture.source import PACKAGE

DATA = PACKAGE / "data"
TEXTS = {"codes.toml": "the pages of the diagnostic codes are texts of labctl, not facts"}


def tables(pattern: str) -> list[Path]:
    return sorted(p for p in DATA.rglob(pattern) if p.name not in TEXTS)


def unsourced(value: Any, path: str, inherited: bool) -> Iterator[str]:  # noqa: FBT001 - of a row
    """Yield the arrays of tables with a row that neither names a source nor stands in a table that does."""
    if isinstance(value, dict):
        sourced = inherited or bool(value.get("source"))
        for key, inner in value.items():
            yield from unsourced(inner, f"{path}.{key}", sourced)
    elif isinstance(value, list) and value and all(isinstance(v, dict) for v in value):
        yield from (f"{path}[{i}]" for i, row in enumerate(value) if not inherited and not row.get("source"))


def top(document: dict[str, Any], name: str) -> Iterator[str]:
    yield from unsourced(document, name, inherited=False)
    loose = {k: v for k, v in document.items() if isinstance(v, dict)}
    if not document.get("source"):
        yield from (f"{name}.{k}" for k, v in loose.items() if not _has_source(v))


def _has_source(table: Any) -> bool:
    if isinstance(table, dict):
        return bool(table.get("source")) or any(_has_source(v) for v in table.values())
    return isinstance(table, list) and any(_has_source(v) for v in table)


@pytest.mark.parametrize("path", tables("*.toml"), ids=lambda p: p.name)
def test_toml(path: Path) -> None:
    document = tomllib.loads(path.read_text(encoding="utf-8"))
    assert not list(top(document, path.name))


@pytest.mark.parametrize("path", tables("*.csv"), ids=lambda p: p.name)
def test_csv(path: Path) -> None:
    with path.open(encoding="utf-8", newline="") as file:
        for number, row in enumerate(csv.DictReader(file), start=2):
            assert None not in row, f"{path.name}:{number} has too many columns"
            assert row.get("source"), f"{path.name}:{number} has no source"


def test_exceptions_exist() -> None:
    for name in TEXTS:
        assert (DATA / name).is_file()
