"""Values → YAML that YAML 1.1 and 1.2 readers understand alike.

The readers differ: PyYAML (LiteLLM, Ansible) reads a bare ``on`` as True and ``12:30`` as 750, ruamel does not. So
a string is bare only when it is plainly a word to both, a multi-line string is a ``|`` block when that is exact, and
everything else is quoted.

Own writer instead of a library's: ruamel's round-trip dumper needs 26 s for the compose file of 5,000 services
(``benchmarks/emit_yaml.py``), this one 0.5 s, and block style without anchors, folding and tags is this small.
"""

from __future__ import annotations

import functools
import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Final

from labctl.emit import HEADER, Value, refuse

_WORDS: Final = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null"})
"""Bare words that some reader takes for a boolean or null, in any case."""

_BARE: Final = re.compile(
    r"(?:[A-Za-z_/]|--?[A-Za-z]|\.\.?/)"  # no digit, sign or indicator first; dots only in a path
    r"(?:[\w./+=@%$,~()\[\]{}<>*&!?;|^'\"\\-]|:(?=[^\s])| (?=[^\s#]))*",
    re.ASCII,
)
_DURATION: Final = re.compile(r"[1-9][0-9]*(?:s|ms|m|h|[bkg]|[KMGT]i?B?)")
"""Digits and a unit of time or size: text to every reader."""

_UNPRINTABLE: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_SCALARS: Final[tuple[type, ...]] = (str, int, float, type(None))
_KEY_LIMIT: Final = 1000
"""Readers give up looking for the colon of a key after 1,024 characters."""


def dump(value: Value, *, header: str = HEADER) -> str:
    """Return the YAML document of ``value``.

    Args:
        value: mappings keep their order; sequences and mappings may be of any kind.
        header: text of the leading comment, one line; empty for none.

    Raises:
        EmitError: for NaN, infinity, lone surrogates, keys that are not text and keys of more than about 1,000
            characters.
    """
    lines = [f"# {header}"] if header else []
    if _is_block(value):
        _block(value, "", lines)
    else:
        _entry("", value, "  ", lines)
    return "\n".join([*lines, ""])


def _is_block(value: Value) -> bool:
    """Whether it takes lines of its own. The concrete types first: a check against an abstract one is slow."""
    return not isinstance(value, _SCALARS) and isinstance(value, dict | list | Mapping | Sequence) and len(value) > 0


def _block(value: Value, indent: str, lines: list[str]) -> None:
    """Append the lines of a mapping or sequence that has entries, all indented."""
    inner = f"{indent}  "
    if isinstance(value, dict | Mapping):
        for key, item in value.items():
            _entry(f"{indent}{_key(key)}:", item, inner, lines)
    elif isinstance(value, list | Sequence):
        for item in value:
            _item(item, indent, inner, lines)


def _entry(head: str, item: Value, inner: str, lines: list[str]) -> None:
    """Append a value behind the ``head`` of its first line; further lines have the indent ``inner``."""
    if isinstance(item, str):
        _string(head, item, inner, lines)
    elif _is_block(item):
        lines.append(head)
        _block(item, inner, lines)
    else:
        lines.append(f"{head} {_scalar(item)}" if head else _scalar(item))


def _item(item: Value, indent: str, inner: str, lines: list[str]) -> None:
    """Append an item of a sequence; a block's first line stands behind the dash."""
    if _is_block(item):
        first = len(lines)
        _block(item, inner, lines)
        lines[first] = f"{indent}- {lines[first][len(inner) :]}"
    else:
        _entry(f"{indent}-", item, inner, lines)


def _string(head: str, text: str, inner: str, lines: list[str]) -> None:
    literal = "\n" in text and _is_literal(text)
    shown = ("|" if text.endswith("\n") else "|-") if literal else _text(text)
    lines.append(f"{head} {shown}" if head else shown)
    if literal:
        lines.extend(f"{inner}{line}" if line else "" for line in text.removesuffix("\n").split("\n"))


def _key(key: object) -> str:
    if not isinstance(key, str):
        refuse(f"the key {key!r}", "it is not text")
    text = _text(key)
    if len(text) > _KEY_LIMIT:
        refuse(f"the key `{key[:20]}…`", "it is too long")
    return text


def _scalar(value: Value) -> str:
    match value:
        case None | bool():
            text = {None: "null", True: "true", False: "false"}[value]
        case float():
            text = _float(value)
        case int():
            text = int.__repr__(value)
        case {}:
            text = "{}"
        case []:
            text = "[]"
        case _:
            refuse(f"`{value!r}`", f"YAML has no {type(value).__name__}")
    return text


def _float(value: float) -> str:
    if not math.isfinite(value):
        refuse(f"`{value}`", "it is not a number")
    mantissa, exponent, power = repr(value).partition("e")
    return f"{mantissa}.0e{power}" if exponent and "." not in mantissa else f"{mantissa}{exponent}{power}"


@functools.lru_cache(maxsize=4096)
def _text(text: str) -> str:
    if (_BARE.fullmatch(text) and text.lower() not in _WORDS) or _DURATION.fullmatch(text):
        return str(text)
    if _SURROGATE.search(text):
        refuse(f"{text!r}", "it is not valid Unicode")
    return _UNPRINTABLE.sub(lambda match: f"\\u{ord(match[0]):04x}", json.dumps(text, ensure_ascii=False))


def _is_literal(text: str) -> bool:
    """Whether a ``|`` block holds exactly this text: several lines, nothing that a reader would trim or fold."""
    if _UNPRINTABLE.search(text) or _SURROGATE.search(text):
        return False
    body = text.removesuffix("\n")
    lines = body.split("\n")
    return bool(lines[0].strip() and lines[-1].strip()) and not lines[0][0].isspace()
