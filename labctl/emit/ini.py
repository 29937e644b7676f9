"""Values → supervisor's configuration file, as its own parser reads it (supervisor ``options.py``, ``datatypes.py``).

The parser cuts a value at `` ;`` and `` #``, expands ``%(name)s``, and its quoting has no escapes; every rule here
answers one of these.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, TypeAlias

from labctl.emit import HEADER, refuse
from labctl.emit.env import NAME
from labctl.values import dataclass

Section: TypeAlias = tuple[str, Sequence[tuple[str, str]]]

_CONTROL: Final = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_COMMENT: Final = re.compile(r"(?<=\s)(?=[;#])")


@dataclass(frozen=True, slots=True)
class Expansion:
    """An argument that supervisor fills in, e.g. ``here`` (the file's folder) or ``ENV_HOME``."""

    name: str


def dump(sections: Iterable[Section], *, header: str = HEADER) -> str:
    """Return the file's text. EmitError for a value with a line break or one that would be cut as a comment."""
    blocks = ["\n".join([f"[{name}]", *(_line(key, value) for key, value in pairs), ""]) for name, pairs in sections]
    return "\n".join([f"; {header}", *blocks])


def text(value: str) -> str:
    """Return a plain value whose ``%`` stands for itself."""
    return value.replace("%", "%%")


def command(arguments: Iterable[str | Expansion]) -> str:
    """Return a ``command=`` value that is split into exactly these arguments.

    EmitError for line breaks and other control characters but tab.
    """
    return " ".join(_argument(argument) for argument in arguments)


def environment(variables: Mapping[str, str]) -> str:
    """Return an ``environment=`` value; EmitError for a value that ``speakable`` refuses."""
    for name, value in variables.items():
        if not NAME.fullmatch(name):
            refuse(f"the variable `{name}`", "its name is not made of letters, digits and underscores")
        if not speakable(value):
            refuse(f"the value of `{name}`", "supervisor's quoting cannot express it")
    return ",".join(f"{name}={_quote(value)}" for name, value in variables.items())


def speakable(value: str) -> bool:
    """Whether supervisor's ``environment=`` can hold this value: it has no escapes and strips quotes at both ends."""
    both = '"' in value and "'" in value
    return not (both or value.strip("'\"") != value or _CONTROL.search(value) or _COMMENT.search(value))


def _argument(argument: str | Expansion) -> str:
    if isinstance(argument, Expansion):
        return f"'%({argument.name})s'"
    if _CONTROL.search(argument):
        refuse(f"the argument {argument!r}", "supervisor's commands are one line")
    return text("".join(shlex.quote(part) for part in _COMMENT.split(argument)) if argument else "''")


def _quote(value: str) -> str:
    quote = "'" if '"' in value else '"'
    return f"{quote}{text(value)}{quote}"


def _line(key: str, value: str) -> str:
    if _CONTROL.search(value) or _COMMENT.search(value) or value != value.strip():
        refuse(f"`{key}={value!r}`", "supervisor would read something else")
    return f"{key}={value}"
