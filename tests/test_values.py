"""The cheap dataclasses behave as the standard ones do."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from collections.abc import Mapping
from dataclasses import field
from typing import Any

import pytest

from labctl import values


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Standard:
    """By the standard library."""

    name: str
    size: int = 1
    tags: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)


@values.dataclass(frozen=True, slots=True, kw_only=True)
class Cheap:
    """By labctl."""

    name: str
    size: int = 1
    tags: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)


@values.dataclass(frozen=True, slots=True)
class Pair:
    """Positional, with a check of its own."""

    left: int
    right: int = 2

    def __post_init__(self) -> None:
        if self.left > self.right:
            message = "left is beyond right"
            raise ValueError(message)


@values.dataclass(frozen=True, slots=True)
class Triple(Pair):
    """Inherits its first fields."""

    more: int = 3


def test_the_same_fields_and_words() -> None:
    assert [f.name for f in dataclasses.fields(Cheap)] == [f.name for f in dataclasses.fields(Standard)]
    assert repr(Cheap(name="a")) == repr(Standard(name="a")).replace("Standard", "Cheap")
    assert dataclasses.asdict(Cheap(name="a", env={"x": "y"})) == dataclasses.asdict(Standard(name="a", env={"x": "y"}))


def test_equality_and_hash_go_by_the_fields() -> None:
    assert Cheap(name="a") == Cheap(name="a") != Cheap(name="b")
    other: Any = Standard(name="a")
    assert Cheap(name="a") != other
    assert len({Pair(1), Pair(1, 2), Pair(2)}) == 2


def test_a_factory_is_asked_each_time() -> None:
    assert Cheap(name="a").env is not Cheap(name="a").env


@pytest.mark.parametrize("given", [{}, {"name": "a", "nme": "b"}])
def test_wrong_arguments_are_refused(given: dict[str, Any]) -> None:
    for kind in (Standard, Cheap):
        with pytest.raises(TypeError, match="argument"):
            kind(**given)


def test_positions_are_counted() -> None:
    assert (Pair(1, 5).left, Pair(1, right=5).right, Triple(1, 2, 9).more) == (1, 5, 9)
    pair: Any = Pair
    cheap: Any = Cheap
    with pytest.raises(TypeError):
        pair(1, 2, 3)
    with pytest.raises(TypeError):
        pair(1, left=1)
    with pytest.raises(TypeError):
        pair()
    with pytest.raises(TypeError):
        cheap("a")


def test_its_own_check_runs() -> None:
    with pytest.raises(ValueError, match="beyond"):
        Pair(3, 2)


def test_nothing_can_be_changed() -> None:
    value = Cheap(name="a")
    with pytest.raises(dataclasses.FrozenInstanceError):
        value.name = "b"  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError):
        del value.name
    with pytest.raises((AttributeError, TypeError)):
        value.other = "b"  # type: ignore[attr-defined]


def test_copies_and_pickles_are_equal() -> None:
    value = Triple(1, 2, 4)
    assert dataclasses.replace(value, more=5) == Triple(1, 2, 5)
    assert copy.copy(value) == copy.deepcopy(value) == pickle.loads(pickle.dumps(value)) == value  # noqa: S301


def test_it_can_be_matched() -> None:
    match Pair(1, 2):
        case Pair(left, right):
            assert (left, right) == (1, 2)
