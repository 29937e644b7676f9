"""Walking the types of a model along an error's location, and naming kinds of values in plain words."""

from __future__ import annotations

import re
import types
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Annotated, Any, Final, Union, get_args, get_origin

from pydantic import BaseModel

from labctl.values import dataclass

_LONGEST_SHOWN: Final = 40
_EXAMPLE: Final = re.compile(r"write for example (`[^`]+`)")


@dataclass(frozen=True, slots=True)
class FieldFacts:
    """What a message says about a field."""

    annotation: Any
    description: str
    example: str


@dataclass(frozen=True, slots=True)
class Fields:
    """The fields of a model by the key that they have in the document."""

    by_key: Mapping[str, FieldFacts]

    @classmethod
    def of(cls, model: type[BaseModel] | None) -> Fields:
        """Return the fields of a model; none for None."""
        return _fields(model) if model is not None else cls({})

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys in the order in which the model declares them."""
        return tuple(self.by_key)

    def find(self, key: str) -> FieldFacts | None:
        """Return the field of that key."""
        return self.by_key.get(key)


@cache
def _fields(model: type[BaseModel]) -> Fields:
    facts: dict[str, FieldFacts] = {}
    for name, info in model.model_fields.items():
        example = str(info.examples[0]) if info.examples else ""
        facts[info.alias or name] = FieldFacts(info.annotation, info.description or "", example)
    return Fields(facts)


def step(kind: Any, part: str | int) -> tuple[Any, type[BaseModel] | None, bool]:
    """Follow one part of an error's location.

    Returns:
        The type behind it (Any when unknown), the model that the part is a key of, and whether the part is no key of
        the document but the label of a union's branch.
    """
    kind = _bare(kind)
    if part == "[key]":
        return kind, None, False
    members = _members(kind)
    if members:
        return _branch(members, str(part)), None, True
    if _is_model(kind):
        field = Fields.of(kind).find(str(part))
        return (field.annotation if field else Any), kind, False
    return _inside(kind), None, False


def describe_input(value: object) -> str:
    """Say what a value of the document is: ``a list``, ``the text `abc```, ``nothing``."""
    match value:
        case None:
            return "nothing"
        case bool():
            return f"`{str(value).lower()}`"
        case int() | float():
            return f"the number {value}"
        case str():
            shown = value if len(value) <= _LONGEST_SHOWN else f"{value[:_LONGEST_SHOWN]}…"
            return f"the text `{shown}`" if value.isprintable() and value else "text"
        case Mapping():
            return "a mapping"
        case _:
            return "a list"


def example_in(message: str) -> str:
    """Return the example that a QuantityError recommends, in backticks; empty when it names none."""
    match = _EXAMPLE.search(message)
    return match.group(1) if match else ""


def _bare(kind: Any) -> Any:
    """Take ``Annotated``, type aliases and ``| None`` off a type."""
    while True:
        members = [a for a in get_args(kind) if a is not type(None)]
        if get_origin(kind) is Annotated:
            kind = get_args(kind)[0]
        elif isinstance(value := getattr(kind, "__value__", None), object) and value is not None:
            kind = value
        elif _is_union(kind) and len(members) == 1:
            kind = members[0]
        else:
            return kind


def _is_union(kind: Any) -> bool:
    return get_origin(kind) in {Union, types.UnionType}


def _members(kind: Any) -> list[Any]:
    return [_bare(a) for a in get_args(kind) if a is not type(None)] if _is_union(kind) else []


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _branch(members: Sequence[Any], label: str) -> Any:
    """Return the member of a union that pydantic's label names; Any when it names none for sure."""
    wanted = "dict" if re.match(r"dict|mapping", label) else "list" if re.match(r"list|tuple|set", label) else ""
    for member in members:
        if not wanted and _is_model(member) and re.search(rf"\b{re.escape(member.__name__)}\b", label):
            return member
    for member in members:
        origin = get_origin(member) or member
        if isinstance(origin, type) and wanted == _container(origin) != "":
            return member
    return Any


def _container(origin: type) -> str:
    if issubclass(origin, str | bytes):
        return ""
    if issubclass(origin, Mapping):
        return "dict"
    return "list" if issubclass(origin, Sequence | set | frozenset) else ""


def _inside(kind: Any) -> Any:
    """Return the type of a container's values."""
    origin, args = get_origin(kind), get_args(kind)
    if not isinstance(origin, type) or not args:
        return Any
    return args[-1] if _container(origin) == "dict" else args[0]
