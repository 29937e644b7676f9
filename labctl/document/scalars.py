"""Plain scalars of YAML 1.2's core schema: what is a number, a truth value, nothing, or text."""

from __future__ import annotations

import math
import re
from typing import Final

from labctl.document.nodes import Scalar

_WORDS: Final[dict[str, Scalar]] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_INTEGER: Final = re.compile(r"[-+]?[0-9]+")
_BASED: Final = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT: Final = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_NOT_FINITE: Final = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_OCTAL_LIKE: Final = re.compile(r"[-+]?0[0-9_]+")
_LONGEST_NUMBER: Final = 300


class NumberError(ValueError):
    """The text is a number that labctl refuses: endless, or absurdly long."""


def resolve(text: str) -> Scalar:
    """Return the value of an unquoted scalar; NumberError when it is not a finite number of sane length."""
    if text in _WORDS:
        return _WORDS[text]
    if text[0] not in "+-.0123456789":
        return text
    if _INTEGER.fullmatch(text):
        return int(_checked(text))
    if _BASED.fullmatch(text):
        return int(_checked(text), 0)
    if _NOT_FINITE.fullmatch(text):
        raise NumberError(text)
    if _FLOAT.fullmatch(text):
        return _finite(_checked(text))
    return text


def is_octal_like(text: str) -> bool:
    """Whether YAML 1.1 readers take this number for an octal one, e.g. ``012``."""
    return _OCTAL_LIKE.fullmatch(text) is not None


def _checked(text: str) -> str:
    if len(text) > _LONGEST_NUMBER:
        raise NumberError(text)
    return text


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise NumberError(text)
    return value
