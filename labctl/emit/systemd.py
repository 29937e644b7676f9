r"""Values → systemd unit files, quoted as systemd.syntax(7), systemd.service(5) and systemd.exec(5) say.

A unit is a list of sections of (key, value) pairs; keys repeat. Values are written as they stand: build them with
``text`` (one plain value), ``command`` (``Exec…=``), ``variable`` (``Environment=``) or ``words`` (a list of words).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final, TypeAlias

from labctl.emit import HEADER, refuse
from labctl.emit.env import NAME

Section: TypeAlias = tuple[str, Sequence[tuple[str, str]]]

_SAFE_WORD: Final = re.compile(r"[A-Za-z0-9_@%+=:,./$~^-]+")
_ESCAPES: Final = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t", "\r": "\\r"}
_ESCAPED: Final = re.compile(r'[\\"\n\t\r]')
_CONTROL: Final = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")
_PROGRAM: Final = re.compile(r"[A-Za-z0-9_/][^$\x00-\x1f\x7f]*")
"""No ``$`` (not expanded in the program's path) and none of the prefixes ``@ - : + !`` first."""


def dump(sections: Iterable[Section], *, header: str = HEADER) -> str:
    """Return a unit file. EmitError for a line break or another control character in a value."""
    blocks = ["\n".join([f"[{name}]", *(_line(key, value) for key, value in pairs), ""]) for name, pairs in sections]
    return "\n".join([f"# {header}", *blocks])


def text(value: str) -> str:
    """Return a plain value, its specifiers (``%n``…) disarmed."""
    return value.replace("%", "%%")


def command(program: str, arguments: Iterable[str] = ()) -> str:
    r"""Return an ``Exec…=`` value that runs ``program`` with exactly these arguments: no variables, no specifiers.

    Line breaks and tabs in arguments become ``\n`` and ``\t``. EmitError for other control characters and for a
    program that is no path or name.
    """
    if not _PROGRAM.fullmatch(program):
        refuse(f"the program `{program}`", "systemd needs a path or a plain name without `$`")
    return " ".join([_word(program), *(_word(argument.replace("$", "$$")) for argument in arguments)])


def variable(name: str, value: str) -> str:
    """Return an ``Environment=`` value for one variable (``$`` has no meaning there)."""
    if not NAME.fullmatch(name):
        refuse(f"the variable `{name}`", "its name is not made of letters, digits and underscores")
    return _word(f"{name}={value}")


def words(values: Iterable[str]) -> str:
    """Return a list value such as ``After=`` or ``ReadWritePaths=``."""
    return " ".join(_word(value) for value in values)


def _word(value: str) -> str:
    value = text(value)
    if _SAFE_WORD.fullmatch(value):
        return value
    quoted = _ESCAPED.sub(lambda match: _ESCAPES[match[0]], value)
    if _CONTROL.search(quoted):
        refuse(f"{value!r}", "it has a control character")
    return f'"{quoted}"'


def _line(key: str, value: str) -> str:
    if _CONTROL.search(value) or value.endswith("\\"):
        refuse(f"`{key}={value!r}`", "a unit's value is one line")
    return f"{key}={value}"
