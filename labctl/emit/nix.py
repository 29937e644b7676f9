"""Values → Nix, written as somebody would who runs NixOS, and read back by ``nix-instantiate`` in the tests.

Plain values are what they are; ``Ref``, ``PathRef``, ``Text``, ``Call`` and ``Lambda`` are what Nix has beyond them;
``Noted`` puts a comment over a definition. Nothing here takes Nix text: names are checked by the language's grammar.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, TypeAlias

from labctl.emit import HEADER, nix_words, refuse
from labctl.values import dataclass

Value: TypeAlias = (
    "Mapping[str, Value] | Sequence[Value] | str | int | float | bool | Ref | PathRef | Text | Call | Lambda | Noted"
    " | None"
)
"""What can be written. Mappings keep their order."""

WIDTH: Final = 100
"""A list or call that fits into this many columns takes one line: the width of nixfmt, the official formatter."""


@dataclasses.dataclass(frozen=True, init=False)
class Ref:
    """A value by its name: ``Ref("pkgs.ollama-cuda")``; ``attributes`` follow it, quoted where they must be.

    ``Ref("config.sops.secrets", "lab/key", "path")`` is ``config.sops.secrets."lab/key".path``. EmitError when
    ``path`` is not identifiers with dots between them.
    """

    path: str
    attributes: tuple[str, ...]

    def __init__(self, path: str, *attributes: str) -> None:
        object.__setattr__(self, "path", nix_words.reference(path))
        object.__setattr__(self, "attributes", attributes)


@dataclass(frozen=True, slots=True)
class PathRef:
    """A path literal such as ``./hardware.nix``, relative to the file. What it names is copied into the store.

    EmitError for an absolute path: secrets are named by strings, which copy nothing.
    """

    path: str

    def __post_init__(self) -> None:
        nix_words.path(self.path)


@dataclasses.dataclass(frozen=True, init=False)
class Text:
    """A string with values in it: ``Text(Ref("pkgs.llama-cpp"), "/bin/llama-server")``."""

    parts: tuple[str | Ref | PathRef | Call, ...]

    def __init__(self, *parts: str | Ref | PathRef | Call) -> None:
        merged: list[str | Ref | PathRef | Call] = []
        for part in parts:
            if isinstance(part, str) and merged and isinstance(merged[-1], str):
                merged[-1] += part
            else:
                merged.append(part)
        object.__setattr__(self, "parts", tuple(merged))


@dataclasses.dataclass(frozen=True, init=False)
class Call:
    """A function and its arguments: ``Call("lib.mkForce", value)``. EmitError for a name as ``Ref`` refuses it."""

    function: str
    arguments: tuple[Value, ...]

    def __init__(self, function: str, first: Value, *more: Value) -> None:
        object.__setattr__(self, "function", nix_words.reference(function))
        object.__setattr__(self, "arguments", (first, *more))


@dataclass(frozen=True, slots=True)
class Lambda:
    """A function of one argument, ``Lambda("pkg", …)``, or of a set with these attributes, ``Lambda(("self",), …)``."""

    argument: str | tuple[str, ...]
    body: Value

    def __post_init__(self) -> None:
        for word in (self.argument,) if isinstance(self.argument, str) else self.argument:
            if not nix_words.is_identifier(word):
                refuse(f"the argument {word!r}", "it is not an identifier")


@dataclass(frozen=True, slots=True)
class Noted:
    """A definition's value under a comment. EmitError for one with a line break."""

    value: Value
    comment: str

    def __post_init__(self) -> None:
        if not self.comment.isprintable():
            refuse(f"the comment {self.comment!r}", "it is not one line of text")


def dump(value: Value) -> str:
    """Return the expression of ``value``, without a line break at its end.

    Raises:
        EmitError: for NUL and lone surrogates in text, numbers beyond 64 bits, NaN, infinity, keys that are not text,
            and a ``Noted`` that is not the value of an attribute.
    """
    return _expression(value, "", 0)


def module(arguments: Sequence[str], body: Mapping[str, Value], *, header: str = HEADER) -> str:
    """Return a file with a function of ``arguments`` (and others) to ``body``, a NixOS module, under a comment.

    Namespaces such as ``services`` are spread over several definitions, with an empty line around long ones. With no
    ``arguments`` it is a plain attribute set, as in flake.nix. EmitError as for ``dump``.
    """
    spread = [entry for key, value in body.items() for entry in _spread(key, value)]
    definitions = ["\n".join(_definition(path, value, "  ")) for path, value in spread]
    head = [f"{_pattern(Lambda(tuple(arguments), None))}:"] if arguments else []
    inside = ["{", *_spaced(definitions), "}"] if definitions else ["{ }"]
    return "\n".join([*(f"# {line}" for line in header.splitlines()), *head, *inside, ""])


def _spread(key: str, value: Value) -> Iterator[tuple[tuple[str, ...], Value]]:
    """Yield ``services = { a = …; b = …; }`` as ``services.a`` and ``services.b``; anything else as it is."""
    if isinstance(value, Mapping) and value:
        yield from (((key, inner), item) for inner, item in value.items())
    else:
        yield (key,), value


def _spaced(definitions: Sequence[str]) -> Iterator[str]:
    """Yield the definitions with an empty line before and after each that takes several lines."""
    for number, definition in enumerate(definitions):
        if number and ("\n" in definition or "\n" in definitions[number - 1]):
            yield ""
        yield definition


def _definition(path: tuple[str, ...], value: Value, indent: str) -> Iterator[str]:
    """Yield the lines of ``a.b = value;``: a set with a single attribute lengthens the path, as one would write it."""
    while True:
        if isinstance(value, Noted):
            yield f"{indent}# {value.comment}"
            value = value.value
        if not (isinstance(value, Mapping) and len(value) == 1):
            break
        ((key, value),) = value.items()
        path = (*path, key)
    head = f"{indent}{'.'.join(map(nix_words.name, path))} ="
    if isinstance(value, Lambda) and not isinstance(value.argument, str):
        inner = f"{indent}  "
        yield f"{head}\n{inner}{_pattern(value)}:\n{inner}{_expression(value.body, inner, len(inner) + 1)};"
    else:
        yield f"{head} {_expression(value, indent, len(head) + 2)};"


def _expression(value: Value, indent: str, column: int) -> str:
    """Return a value that begins at ``column``, in lines that are indented by ``indent`` and one step more inside."""
    inner = f"{indent}  "
    inline = _inline(value)
    if inline is not None and column + len(inline) <= WIDTH:
        return inline
    match value:
        case Mapping():
            lines = [line for key, item in value.items() for line in _definition((key,), item, inner)]
            text = "\n".join(["{", *lines, f"{indent}}}"])
        case str() | Text():
            parts = _interpolated(value)
            text = nix_words.indented(parts, inner) or nix_words.quoted(parts)
        case Call():
            text = value.function
            for argument in value.arguments:
                text += f" {_atom(argument, indent, column + len(text) + 1)}"
        case Lambda():
            text = f"{_pattern(value)}: {_expression(value.body, indent, column + len(_pattern(value)) + 2)}"
        case [*items]:
            text = "\n".join(["[", *(f"{inner}{_atom(item, inner, len(inner))}" for item in items), f"{indent}]"])
        case _:
            text = inline or _word(value)  # longer than the line, and in one piece
    return text


def _atom(value: Value, indent: str, column: int) -> str:
    """Return a value as an item of a list or an argument, in parentheses where it would fall apart."""
    inline = _inline_atom(value)
    if inline is not None and column + len(inline) <= WIDTH:
        return inline
    text = _expression(value, indent, column)
    return f"({text})" if _falls_apart(value) else text


def _falls_apart(value: Value) -> bool:
    return isinstance(value, Call | Lambda) or (isinstance(value, int | float) and str(value).startswith("-"))


def _inline(value: Value) -> str | None:
    """Return a value on one line, None where it takes several."""
    match value:
        case str() | Text():
            parts = _interpolated(value)
            text = None if nix_words.indented(parts, "") else nix_words.quoted(parts)
        case Call():
            text = _joined([value.function, *map(_inline_atom, value.arguments)])
        case Lambda():
            text = _joined([f"{_pattern(value)}:", _inline(value.body)])
        case Mapping():
            text = None if value else "{ }"
        case [*items]:
            text = _joined(["[", *map(_inline_atom, items), "]"])
        case _:
            text = _word(value)
    return text


def _word(value: Value) -> str:
    """Return a value that is always one word."""
    match value:
        case None | bool():
            text = {None: "null", True: "true", False: "false"}[value]
        case int():
            text = nix_words.integer(value)
        case float():
            text = nix_words.floating(value)
        case Ref():
            text = ".".join([value.path, *map(nix_words.name, value.attributes)])
        case PathRef():
            text = value.path
        case _:
            refuse(f"`{value!r}`", f"Nix has no {type(value).__name__} here")
    return text


def _inline_atom(value: Value) -> str | None:
    """Return an item or an argument on one line; of sets only those with a single plain attribute."""
    if isinstance(value, Mapping) and len(value) == 1:
        definition = "\n".join(_definition((), value, ""))
        return None if "\n" in definition else f"{{ {definition} }}"
    text = _inline(value)
    return f"({text})" if text is not None and _falls_apart(value) else text


def _joined(words: Sequence[str | None]) -> str | None:
    known = [word for word in words if word is not None]
    return " ".join(known) if len(known) == len(words) else None


def _pattern(function: Lambda) -> str:
    """Return what stands before the colon; a set's other attributes are let through."""
    argument = function.argument
    return argument if isinstance(argument, str) else f"{{ {', '.join([*argument, '...'])} }}"


def _interpolated(value: str | Text) -> nix_words.Interpolated:
    parts = (value,) if isinstance(value, str) else value.parts
    return [(False, part) if isinstance(part, str) else (True, _expression(part, "", 0)) for part in parts]
