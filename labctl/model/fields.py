"""Field shapes and errors that several blocks share."""

from __future__ import annotations

from typing import Annotated, Any, NoReturn, TypeVar

from pydantic import BeforeValidator

T = TypeVar("T")


def _listed(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(value)
    return value if isinstance(value, tuple) else (value,)


OneOrMany = Annotated[tuple[T, ...], BeforeValidator(_listed)]
"""A list, or one element written without brackets."""


class BlockError(ValueError):
    """A rule over several keys of one block is broken (LAB027)."""

    code = "LAB027"

    def __init__(self, summary: str, hint: str) -> None:
        super().__init__(summary)
        self.hint = hint


def conflict(summary: str, hint: str = "") -> NoReturn:
    """Raise the error of a rule over several keys, from inside a validator."""
    raise BlockError(summary, hint)
