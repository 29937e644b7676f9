"""The words of the Nix language: identifiers, attribute paths, numbers, paths and strings, as its own lexer reads them.

The rules are those of ``src/libexpr/lexer.l`` and ``parser.y`` of Nix 2.8 (``stripIndentation`` for ``''`` strings).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

from labctl.emit import refuse

KEYWORDS: Final = frozenset({"if", "then", "else", "assert", "with", "let", "in", "rec", "inherit", "or"})

_IDENTIFIER: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_'-]*")
_PATH: Final = re.compile(r"\.\.?(?:/[A-Za-z0-9._+-]+)+")
_LARGEST: Final = 2**63 - 1
_SMALLEST_NORMAL: Final = 2.2250738585072014e-308
"""Nix refuses what ``strtod`` reports as an underflow."""

_UNSPEAKABLE: Final = re.compile("[\x00\ud800-\udfff]")
"""Nix strings end at a NUL, and are UTF-8."""

_ESCAPES: Final = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t", "\r": "\\r", "$": "\\$"}
_ESCAPED: Final = re.compile(r'[\\"\n\t\r]|\$(?=\{)')
_ESCAPED_INDENTED: Final = re.compile(r"''|\$(?=\{)")
_NOT_INDENTED: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f]")

Interpolated: TypeAlias = Sequence[tuple[bool, str]]
"""Parts of a string: ``(False, literal text)`` and ``(True, expression as Nix text)``."""


def is_identifier(text: str) -> bool:
    """Whether it can stand bare as a variable's or an attribute's name."""
    return bool(_IDENTIFIER.fullmatch(text)) and text not in KEYWORDS


def name(key: object) -> str:
    """Return an attribute's name, quoted where it must be. EmitError for what is not text."""
    if not isinstance(key, str):
        refuse(f"the attribute {key!r}", "it is not text")
    return key if is_identifier(key) else quoted([(False, key)])


def reference(path: str) -> str:
    """Return ``pkgs.llama-cpp`` as it is. EmitError for what is not identifiers with dots between them."""
    if not all(is_identifier(part) for part in path.split(".")):
        refuse(f"`{path}`", "it is not a path of identifiers such as `pkgs.ollama`")
    return path


def path(text: str) -> str:
    """Return a path literal as it is. EmitError for an absolute one, and for characters that end a literal."""
    if not _PATH.fullmatch(text):
        refuse(f"the path {text!r}", "a path literal is relative, as `./hardware.nix`, of letters, digits and `._+-`")
    return text


def integer(value: int) -> str:
    """Return a whole number. EmitError beyond 63 bits."""
    if abs(value) > _LARGEST:
        refuse(f"`{value}`", "Nix has numbers of 64 bits")
    return int.__repr__(value)


def floating(value: float) -> str:
    """Return a number with a point. EmitError for NaN, infinity and numbers too near to nothing."""
    if not math.isfinite(value) or 0 < abs(value) < _SMALLEST_NORMAL:
        refuse(f"`{value}`", "Nix cannot read it")
    mantissa, exponent, power = float.__repr__(value).partition("e")
    return f"{mantissa}.0e{power}" if exponent and "." not in mantissa else f"{mantissa}{exponent}{power}"


def quoted(parts: Interpolated) -> str:
    """Return a ``"…"`` string on one line. EmitError for NUL and lone surrogates."""
    return f'"{_joined(parts, _ESCAPED, lambda found: _ESCAPES[found[0]])}"'


def indented(parts: Interpolated, margin: str) -> str | None:
    """Return a string as ``''`` and lines that begin with ``margin``, the closing quotes a step to the left of them.

    None where that form cannot say exactly this text or would hide what it says: one without a line break, with blanks
    that the indentation swallows, with control characters.
    """
    marked = "".join("\0" if expression else text for expression, text in parts)
    if "\n" not in marked or not _fits_indented(marked, parts):
        return None
    body = _joined(parts, _ESCAPED_INDENTED, lambda found: "''$" if found[0] == "$" else "'''")
    lines = [f"{margin}{line}" if line else "" for line in body.removesuffix("\n").split("\n")]
    end = [margin.removesuffix("  ")] if body.endswith("\n") else []
    return "\n".join(["''", *lines, *end]) + "''"


def _fits_indented(marked: str, parts: Interpolated) -> bool:
    """Whether ``''`` lines hold exactly this text, in which a NUL stands for each expression."""
    lines = marked.removesuffix("\n").split("\n")
    return (
        not any(_NOT_INDENTED.search(text) for expression, text in parts if not expression)
        and "'\0" not in marked
        and "'${" not in marked
        and not marked.endswith("'")
        and bool(lines[0] and lines[-1])
        and not any(line.isspace() for line in lines)
        and not all(line.startswith(" ") for line in lines if line)
    )


def _joined(parts: Interpolated, special: re.Pattern[str], escape: Callable[[re.Match[str]], str]) -> str:
    """Return the parts between the quotes. A ``$`` at the end of a literal would hide the expression behind it."""
    written: list[str] = []
    for number, (expression, text) in enumerate(parts):
        if expression:
            written.append(f"${{{text}}}")
            continue
        if found := _UNSPEAKABLE.search(text):
            refuse(f"{text!r}", f"Nix has no text with {found[0]!r}")
        behind = "{" if number + 1 < len(parts) else ""
        written.append(special.sub(escape, text + behind).removesuffix(behind))
    return "".join(written)
