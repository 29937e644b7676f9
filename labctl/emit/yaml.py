"""Values → YAML that YAML 1.1 and 1.2 readers understand alike.

The readers differ: PyYAML (LiteLLM, Ansible) reads a bare ``on`` as True and ``12:30`` as 750, ruamel does not. So
a string is bare only when it is plainly a word to both, a multi-line string is a ``|`` block when that is exact, and
everything else is quoted.

Own writer instead of a library's: ruamel's round-trip dumper needs about 20 s for the compose file of 5,000 services
(``benchmarks/emit_yaml.py``), this one 0.5 s, and block style without anchors, folding and tags is this small.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
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
    comment = [f"# {header}"] if header else []
    return "\n".join([*comment, *_document(value), ""])


def _document(value: Value) -> Iterator[str]:
    if _is_block(value):
        return _block(value, "")
    if isinstance(value, str) and _is_literal(value):
        return _literal(value, "", "")
    return iter([_scalar(value)])


def _is_block(value: Value) -> bool:
    return isinstance(value, Mapping | Sequence) and not isinstance(value, str) and len(value) > 0


def _block(value: Value, indent: str) -> Iterator[str]:
    """Yield the lines of a mapping or sequence that has entries, all indented."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _entry(f"{indent}{_key(key)}:", item, f"{indent}  ")
    elif isinstance(value, Sequence):
        for item in value:
            yield from _item(item, indent)


def _entry(head: str, item: Value, indent: str) -> Iterator[str]:
    if _is_block(item):
        yield head
        yield from _block(item, indent)
    elif isinstance(item, str) and _is_literal(item):
        yield from _literal(item, f"{head} ", indent)
    else:
        yield f"{head} {_scalar(item)}"


def _item(item: Value, indent: str) -> Iterator[str]:
    inner = f"{indent}  "
    if _is_block(item):
        for number, line in enumerate(_block(item, inner)):
            yield line if number else f"{indent}- {line[len(inner) :]}"
    else:
        yield from _entry(f"{indent}-", item, inner)


def _key(key: object) -> str:
    if not isinstance(key, str):
        refuse(f"the key {key!r}", "it is not text")
    text = _text(key)
    if len(text) > _KEY_LIMIT:
        refuse(f"the key `{key[:20]}…`", "it is too long")
    return text


def _scalar(value: Value) -> str:
    match value:
        case str():
            text = _text(value)
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


def _text(text: str) -> str:
    if (_BARE.fullmatch(text) and text.lower() not in _WORDS) or _DURATION.fullmatch(text):
        return str(text)
    if _SURROGATE.search(text):
        refuse(f"{text!r}", "it is not valid Unicode")
    return _UNPRINTABLE.sub(lambda match: f"\\u{ord(match[0]):04x}", json.dumps(text, ensure_ascii=False))


def _is_literal(text: str) -> bool:
    """Whether a ``|`` block holds exactly this text: several lines, nothing that a reader would trim or fold."""
    if "\n" not in text or _UNPRINTABLE.search(text) or _SURROGATE.search(text):
        return False
    body = text.removesuffix("\n")
    lines = body.split("\n")
    return bool(lines[0].strip() and lines[-1].strip()) and not lines[0][0].isspace()


def _literal(text: str, head: str, indent: str) -> Iterator[str]:
    """Yield a block scalar behind ``head``; its lines get ``indent``, or two spaces at the top of a document."""
    indent = indent or "  "
    yield f"{head}|" if text.endswith("\n") else f"{head}|-"
    for line in text.removesuffix("\n").split("\n"):
        yield f"{indent}{line}" if line else ""
