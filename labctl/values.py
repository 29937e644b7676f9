"""Frozen dataclasses that are cheap to define.

``dataclasses`` writes and compiles five functions for every class. labctl has some hundred and seventy such classes,
and a command needs most of them: that was a third of its start-up (``python -m benchmarks.startup``). The classes made
here have the same fields, constructor, equality, hash, order of fields and immutability, and work with
``dataclasses.fields``, ``replace`` and ``asdict``; only their methods are shared closures instead of generated code.
They are a little slower to create, so values that exist by the hundred thousand keep the standard decorator.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

__all__ = ["dataclass"]

if TYPE_CHECKING:
    from dataclasses import dataclass
else:

    def dataclass(cls=None, /, *, frozen=False, slots=False, kw_only=False):
        """Return the class as a frozen dataclass; the three options are ``dataclasses.dataclass``'s own."""

        def make(cls):
            if not frozen:
                return dataclasses.dataclass(cls, slots=slots, kw_only=kw_only)
            return _frozen(cls, slots=slots, kw_only=kw_only)

        return make if cls is None else make(cls)


def _frozen(cls: Any, *, slots: bool, kw_only: bool) -> Any:
    made: Any = dataclasses.dataclass(cls, init=False, repr=False, eq=False, slots=slots, kw_only=kw_only)
    fields = dataclasses.fields(made)
    names = tuple(f.name for f in fields)
    made.__init__ = _constructor(made, fields)
    made.__setattr__ = _refuse_set
    made.__delattr__ = _refuse_delete
    made.__getstate__, made.__setstate__ = _pickling(names)
    for name, method in (("__repr__", _repr(names)), ("__eq__", _equal(names)), ("__hash__", _hash(names))):
        if name not in cls.__dict__ or (name == "__hash__" and cls.__dict__[name] is None):
            setattr(made, name, method)
    return made


def _constructor(made: Any, fields: tuple[dataclasses.Field[Any], ...]) -> Any:
    ordered = [f for f in fields if not f.kw_only] + [f for f in fields if f.kw_only]
    positional = tuple(f.name for f in fields if not f.kw_only)
    plain = [(f.name, f.default) for f in ordered if f.default_factory is dataclasses.MISSING]
    made_anew = [(f.name, f.default_factory) for f in ordered if f.default_factory is not dataclasses.MISSING]
    known = frozenset(f.name for f in fields)
    after = getattr(made, "__post_init__", None)
    missing = dataclasses.MISSING
    put = object.__setattr__
    name = made.__name__

    def __init__(self: Any, *args: Any, **given: Any) -> None:  # noqa: N807
        if args:
            _take_positional(name, positional, args, given)
        if not known.issuperset(given):
            unexpected = next(iter(given.keys() - known))
            message = f"{name}.__init__() got an unexpected keyword argument {unexpected!r}"
            raise TypeError(message)
        for key, default in plain:
            value = given.get(key, default)
            if value is missing:
                message = f"{name}.__init__() missing required argument: {key!r}"
                raise TypeError(message)
            put(self, key, value)
        for key, factory in made_anew:
            put(self, key, given[key] if key in given else factory())
        if after is not None:
            after(self)

    return __init__


def _take_positional(name: str, positional: tuple[str, ...], args: tuple[Any, ...], given: dict[str, Any]) -> None:
    if len(args) > len(positional):
        message = f"{name}.__init__() takes {len(positional)} positional arguments but {len(args)} were given"
        raise TypeError(message)
    for key, value in zip(positional, args, strict=False):
        if key in given:
            message = f"{name}.__init__() got multiple values for argument {key!r}"
            raise TypeError(message)
        given[key] = value


def _repr(names: tuple[str, ...]) -> Any:
    def __repr__(self: Any) -> str:  # noqa: N807
        inner = ", ".join(f"{name}={getattr(self, name)!r}" for name in names)
        return f"{type(self).__qualname__}({inner})"

    return __repr__


def _equal(names: tuple[str, ...]) -> Any:
    def __eq__(self: Any, other: object) -> Any:  # noqa: N807
        if other.__class__ is not self.__class__:
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in names)

    return __eq__


def _hash(names: tuple[str, ...]) -> Any:
    def __hash__(self: Any) -> int:  # noqa: N807
        return hash(tuple(getattr(self, name) for name in names))

    return __hash__


def _pickling(names: tuple[str, ...]) -> tuple[Any, Any]:
    """Return how a value is taken apart and put together again by ``copy`` and ``pickle``, past its immutability."""

    def __getstate__(self: Any) -> list[Any]:  # noqa: N807
        return [getattr(self, name) for name in names]

    def __setstate__(self: Any, state: list[Any]) -> None:  # noqa: N807
        for name, value in zip(names, state, strict=True):
            object.__setattr__(self, name, value)

    return __getstate__, __setstate__


def _refuse_set(self: Any, name: str, value: Any) -> None:  # noqa: ARG001
    message = f"cannot assign to field {name!r}"
    raise dataclasses.FrozenInstanceError(message)


def _refuse_delete(self: Any, name: str) -> None:  # noqa: ARG001
    message = f"cannot delete field {name!r}"
    raise dataclasses.FrozenInstanceError(message)
