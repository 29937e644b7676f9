"""The types of NixOS options, as the table writes them, and which values they take.

Values are those that ``emit.nix`` writes. What only Nix can compute, a call or a name of something unknown, fits any
type; a package, a path, a function or a secret's place is told apart.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Final

from labctl.emit.nix import Call, Lambda, Noted, PathRef, Ref, Text
from labctl.values import dataclass

STORE: Final = "/nix/store/"
_HOST_NAME: Final = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9])?)?")
_FETCHED: Final = re.compile(r"\$__(?:file|env)\{|@\w+@|\$\{?\w+")
"""A place that a program fills in when it starts: Grafana's ``$__file{…}``, SearXNG's ``@NAME@``, ``$NAME``."""
_TEXTS: Final = frozenset({"str", "lines", "nonEmptyStr", "secretText", "unitOption"})
_OF: Final = frozenset({"nullOr", "listOf", "attrsOf"})
_LAST_PORT: Final = 65535
_PRIORITIES: Final = frozenset({"lib.mkForce", "lib.mkDefault", "lib.mkBefore", "lib.mkAfter"})
_CONDITIONS: Final = frozenset({"lib.mkOverride", "lib.mkOrder", "lib.mkIf"})


@dataclass(frozen=True, slots=True)
class OptionType:
    """``listOf str``: a word and what it is of; an ``enum`` has its values as words of their own."""

    name: str
    of: tuple[OptionType, ...] = ()

    def __str__(self) -> str:
        """Return it in words, as a message says it."""
        inside = [str(inner) for inner in self.of]
        if self.name == "enum":
            return "one of " + ", ".join(f"`{inner.name}`" for inner in self.of)
        if self.name in {"either", "oneOf"}:
            return " or ".join(inside)
        words = _WORDS.get(self.name, self.name)
        return words.format(*inside) if inside else words


_WORDS: Final = {
    "anything": "any value",
    "attrsOf": "a set, of each {}",
    "bool": "true or false",
    "float": "a number",
    "free": "any data",
    "function": "a function",
    "hostName": "a host name: letters, digits and hyphens",
    "int": "a whole number",
    "lines": "text",
    "listOf": "a list, of each {}",
    "never": "nothing",
    "nonEmptyStr": "text that is not empty",
    "nullOr": "{}, or null",
    "package": "a package",
    "path": "an absolute path",
    "port": "a port, 0 to 65535",
    "secretFile": "the path, as text, of a file on the host that is not in the store",
    "secretText": "a reference to a secret, such as `$__file{/run/…}`",
    "secretValue": "nothing",
    "str": "text",
    "unitOption": "text, a number, true, false or null, or a list of these",
}


@cache
def parse(text: str) -> OptionType:
    """Read a type such as ``nullOr (listOf str)``. ValueError when a word is not a type's."""
    words = re.findall(r"[()]|[^()\s]+", text)
    found = _read(words)
    if words:
        message = f"{text!r} goes on after the type"
        raise ValueError(message)
    return found


def _read(words: list[str]) -> OptionType:
    name = words.pop(0)
    if name == "enum":
        values = words.index(")") if ")" in words else len(words)
        taken, words[:] = words[:values], words[values:]
        return OptionType(name, tuple(OptionType(value) for value in taken))
    several = name in {"either", "oneOf"}
    if name not in _WORDS and not several:
        message = f"{name!r} is not a type"
        raise ValueError(message)
    inner: list[OptionType] = []
    while words and words[0] != ")" and (several or (name in _OF and not inner)):
        inner.append(_atom(words))
    return OptionType(name, tuple(inner))


def _atom(words: list[str]) -> OptionType:
    if words[0] != "(":
        return _read([words.pop(0)])
    words.pop(0)
    found = _read(words)
    words.pop(0)
    return found


def is_secret(wanted: OptionType) -> bool:
    """Whether the type is that of a secret, or of null or several of them."""
    return wanted.name in {"secretFile", "secretText"} or any(is_secret(inner) for inner in wanted.of)


def definitions(value: object) -> Iterator[object]:
    """Yield what a value defines: without its comment, its priority and its condition; each part of a merge."""
    match value:
        case Noted(inner):
            yield from definitions(inner)
        case Call("lib.mkMerge", ([*parts],)):
            for part in parts:
                yield from definitions(part)
        case Call(function, (*_, inner)) if function in _PRIORITIES | _CONDITIONS:
            yield from definitions(inner)
        case _:
            yield value


def fits(wanted: OptionType, value: object) -> bool:
    """Whether an option of this type takes the value."""
    return all(_fits(wanted, each) for each in definitions(value))


def _fits(wanted: OptionType, value: object) -> bool:
    match wanted.name:
        case "free" | "anything":
            found = True
        case "never" | "secretValue":
            found = False
        case "either" | "oneOf":
            found = any(fits(inner, value) for inner in wanted.of)
        case "enum":
            found = isinstance(value, Call) or any(_same(value, choice.name) for choice in wanted.of)
        case "nullOr" | "listOf" | "attrsOf":
            found = _fits_inside(wanted, value)
        case "secretFile":
            found = _runtime_path(value)
        case _ if isinstance(value, Ref | Call | Lambda | PathRef):
            found = _expression(wanted.name, value)
        case _ if isinstance(value, list | tuple):
            found = wanted.name == "unitOption" and all(_scalar("unitOption", item) for item in value)
        case _:
            found = _scalar(wanted.name, value)
    return found


def _fits_inside(wanted: OptionType, value: object) -> bool:
    """Whether a value is null, a list or a set with what may be in it."""
    (inner,) = wanted.of
    match wanted.name, value:
        case "nullOr", _:
            return value is None or fits(inner, value)
        case "listOf", [*items]:
            return all(fits(inner, item) for item in items)
        case "attrsOf", Mapping():
            return all(fits(inner, item) for item in value.values())
    return isinstance(value, Call) or (isinstance(value, Ref) and not value.path.startswith("pkgs."))


def _same(value: object, choice: str) -> bool:
    return value is {"false": False, "true": True}.get(choice, ...) or value == choice


def _expression(wanted: str, value: Ref | Call | Lambda | PathRef) -> bool:
    """Whether something that Nix computes may have this type."""
    match value:
        case Lambda():
            return wanted == "function"
        case PathRef():
            return wanted in {"path", "unitOption"}
        case Ref(path) if path.startswith("pkgs."):
            return wanted in {"package", "path", "unitOption"}
    return wanted not in {"secretText", "function"} or isinstance(value, Ref)


def _runtime_path(value: object) -> bool:
    """Whether it names a file of the host's, of which nothing gets into the store."""
    match value:
        case str():
            return value.startswith("/") and not value.startswith(STORE)
        case Text(parts):
            stored = any(
                isinstance(p, PathRef | Call) or (isinstance(p, Ref) and p.path.startswith("pkgs.")) for p in parts
            )
            return not stored and (isinstance(parts[0], Ref) or str(parts[0]).startswith("/"))
        case Ref(path):
            return path.startswith("config.")
    return False


def _scalar(wanted: str, value: object) -> bool:
    """Whether a plain value or a text with values in it has this type."""
    if isinstance(value, Text):
        begins = value.parts[0] if value.parts else ""
        absolute = not isinstance(begins, str) or begins.startswith("/")
        return wanted in _TEXTS or (wanted == "path" and absolute)
    if value is None:
        return wanted == "unitOption"  # left out of the unit
    if isinstance(value, bool):
        return wanted in {"bool", "unitOption"}
    if isinstance(value, str):
        return _text(wanted, value)
    if isinstance(value, int):
        return wanted in {"int", "float", "unitOption"} or (wanted == "port" and 0 <= value <= _LAST_PORT)
    return isinstance(value, float) and wanted == "float"


def _text(wanted: str, value: str) -> bool:
    match wanted:
        case "path":
            return value.startswith("/")
        case "nonEmptyStr":
            return bool(value.strip())
        case "hostName":
            return bool(_HOST_NAME.fullmatch(value))
        case "secretText":
            return bool(_FETCHED.search(value))
    return wanted in _TEXTS
