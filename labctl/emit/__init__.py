"""Values → text, and nothing else: no files, no clock, and the same bytes for the same values.

What a format cannot say is an ``EmitError``, never an approximation: every writer here is tested by reading its output
back with the format's real reader.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NoReturn, TypeAlias

Value: TypeAlias = "Mapping[str, Value] | Sequence[Value] | str | int | float | bool | None"
"""What JSON and YAML can hold. Mappings keep their order."""

HEADER: Final = "made by labctl from lab.yaml: edit that instead"
"""First line of every generated file, as a comment."""


class EmitError(ValueError):
    """A value that the format cannot express; ``str(error)`` says which and why."""


def refuse(what: str, why: str) -> NoReturn:
    """Raise the EmitError for a value that cannot be written, e.g. ``refuse("`A`", "it has a line break")``."""
    message = f"{what} cannot be written: {why}"
    raise EmitError(message)
