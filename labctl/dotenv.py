"""The ``.env`` syntax: text → names and values. Pure; errors have a place and never show a value."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

_NAME: Final = re.compile(r"[ \t]*(?:export[ \t]+)?([A-Za-z_][A-Za-z0-9_]*)[ \t]*=[ \t]*")
_BLANK: Final = re.compile(r"[ \t]*(?:#[^\n]*)?(?:\n|\Z)")
_SINGLE: Final = re.compile(r"'([^']*)'")
_DOUBLE: Final = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_BARE: Final = re.compile(r"[^\n]*")
_COMMENT: Final = re.compile(r"[ \t]+#.*\Z")
_ESCAPE: Final = re.compile(r"\\(.)", re.DOTALL)
_UNESCAPED: Final = {"n": "\n", "t": "\t", "r": "\r"}
_ESCAPABLE: Final = frozenset('"\\$`')


class DotenvError(ValueError):
    """A line that is not ``NAME=value``. ``message`` shows no value; ``line`` and ``column`` are 1-based."""

    def __init__(self, message: str, line: int, column: int) -> None:
        self.message, self.line, self.column = message, line, column
        super().__init__(f"line {line}, column {column}: {message}")


def parse_dotenv(text: str) -> Mapping[str, str]:
    r"""Read dotenv text.

    ``NAME=value`` with an optional ``export``; ``'…'`` is literal; ``"…"`` knows ``\n \t \r \" \\ \$`` and may span
    lines; a bare value ends at the line's end or at ``#`` after a space. Nothing is expanded: ``$NAME`` stays as it is,
    so that a password with a dollar sign means itself.

    Raises:
        DotenvError: for anything else, and for a name that comes twice.
    """
    values: dict[str, str] = {}
    text = text.replace("\r\n", "\n")
    at = 1 if text.startswith("\ufeff") else 0
    while at < len(text):
        blank = _BLANK.match(text, at)
        if blank is not None:
            at = blank.end()
            continue
        at = _entry(text, at, values)
    return values


def _entry(text: str, at: int, values: dict[str, str]) -> int:
    name = _NAME.match(text, at)
    if name is None:
        raise _error(text, at, "expected NAME=value")
    if name[1] in values:
        raise _error(text, name.start(1), f"`{name[1]}` comes twice")
    values[name[1]], end = _value(text, name.end())
    return end


def _value(text: str, at: int) -> tuple[str, int]:
    quote = text[at : at + 1]
    if quote not in {"'", '"'} or not quote:
        bare = _BARE.match(text, at)
        raw = bare[0] if bare else ""
        return ("" if raw.startswith("#") else _COMMENT.sub("", raw).rstrip()), at + len(raw) + 1
    found = (_SINGLE if quote == "'" else _DOUBLE).match(text, at)
    if found is None:
        raise _error(text, at, "the quote is not closed")
    rest = _BLANK.match(text, found.end())
    if rest is None:
        raise _error(text, found.end(), "something follows the closing quote")
    return (found[1] if quote == "'" else _ESCAPE.sub(_unescape, found[1])), rest.end()


def _unescape(found: re.Match[str]) -> str:
    char = found[1]
    if char in _ESCAPABLE:
        return char
    return _UNESCAPED.get(char, found[0])


def _error(text: str, at: int, message: str) -> DotenvError:
    before = text[:at]
    return DotenvError(message, before.count("\n") + 1, at - (before.rfind("\n") + 1) + 1)
