"""The shipped tables of facts as rows. Read once per process, when first asked for."""

from __future__ import annotations

import csv
import tomllib
from collections.abc import Mapping
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any, Final, TypeVar

_FOLDER: Final = Path(__file__).parents[1] / "data"

T = TypeVar("T")


@cache
def text(name: str) -> str:
    """Return the text of a table under ``labctl/data``."""
    return (_FOLDER / name).read_text(encoding="utf-8")


@cache
def toml(name: str) -> Mapping[str, list[dict[str, Any]]]:
    """Return the arrays of tables of a TOML file under ``labctl/data``."""
    return tomllib.loads(text(name))


@cache
def csv_rows(name: str) -> tuple[dict[str, str], ...]:
    """Return the rows of a CSV file under ``labctl/data``."""
    head, *body = csv.reader(text(name).splitlines())
    return tuple(dict(zip(head, line, strict=True)) for line in body)


def row(kind: type[T], values: Mapping[str, Any]) -> T:
    """Return a row as a value: lists become tuples, and a column that the type lacks is a TypeError."""
    return kind(**{key: tuple(v) if isinstance(v, list) else v for key, v in values.items()})


def rows(kind: type[T], file: str, key: str) -> tuple[T, ...]:
    """Return all rows of one array of tables."""
    return tuple(row(kind, values) for values in toml(file)[key])


def columns(kind: type[Any]) -> tuple[str, ...]:
    """Return the names of a row type's columns."""
    return tuple(f.name for f in fields(kind))
