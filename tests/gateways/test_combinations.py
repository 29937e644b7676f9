"""The matrix allows exactly what fits: no set over a budget, and none that fits is missing."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labctl.gateways import Children
from labctl.gateways.combinations import TooManyError, any_of, clusters, largest
from labctl.gateways.llama_swap import config
from labctl.gateways.llama_swap.config import build
from labctl.workload import Workload
from tests.gateways.matrix import expansions
from tests.gateways.swap_asks import ask, fits, subsets

NAMES = tuple("abcdefgh")


@st.composite
def households(draw: st.DrawFn) -> dict[str, Any]:
    """Return sizes on two cards and in RAM, budgets, and rivals. Every child fits alone, as the ledger sees to."""
    names = NAMES[: draw(st.integers(1, len(NAMES)))]
    places = ("gpu 0", "gpu 1", "ram")
    size = st.sampled_from((0, 1, 2, 3, 5, 8))
    takes = {n: {p: s for p in places if (s := draw(size))} for n in names}
    room = {p: draw(st.integers(8, 24)) for p in places}
    group = st.sampled_from((None, None, None, "x", "y"))
    deployment = st.sampled_from(("one", "two"))
    apart = {n: (g, f"{g}-{draw(deployment)}") for n in names if (g := draw(group))}
    return {"takes": takes, "room": room, "apart": apart}


def matrix_of(asked: Any) -> dict[str, Any]:
    routing = build(asked)["routing"]["router"]
    assert routing["use"] == "matrix"
    found: dict[str, Any] = routing["settings"]["matrix"]
    return found


@given(households())
def test_exactly_what_fits(lab: dict[str, Any]) -> None:
    asked = ask(**lab)
    allowed = expansions(matrix_of(asked))
    for some in subsets(lab["takes"]):
        assert any(some <= held for held in allowed) == fits(some, asked.children), sorted(some)


@given(households(), st.data())
def test_pinned_models_are_in_every_largest_set(lab: dict[str, Any], data: st.DataObject) -> None:
    pin = frozenset(data.draw(st.sets(st.sampled_from(sorted(lab["takes"])), max_size=2)))
    asked = ask(**lab, pin=sorted(pin))
    if not fits(pin, asked.children) or any(not fits(pin | {n}, asked.children) for n in lab["takes"]):
        return
    allowed = expansions(matrix_of(asked))
    biggest = [held for held in allowed if not any(held < other for other in allowed)]
    assert all(pin <= held for held in biggest)
    for some in subsets(set(lab["takes"]) - pin):
        assert any(some | pin <= held for held in allowed) == fits(some | pin, asked.children)


@given(households())
def test_counting_promises_what_holds_for_any(lab: dict[str, Any]) -> None:
    children = ask(**lab).children
    number = any_of(children)
    sets = list(subsets(lab["takes"]))
    assert all(fits(some, children) for some in sets if len(some) <= number)
    assert number == len(lab["takes"]) or any(not fits(some, children) for some in sets if len(some) == number + 1)


def household(sizes: list[int], room: int) -> Children:
    names = [f"m{i}" for i in range(len(sizes))]
    servers = {name: Workload(name=name, host="h", forms=()) for name in names}
    takes = {name: {"gpu": size} for name, size in zip(names, sizes, strict=True)}
    return Children(servers=servers, takes=takes, room={"gpu": room})


def test_equal_models_count_as_one() -> None:
    """Any ten of twenty: one line, not 184,756."""
    children = household([8] * 20, 80)
    (kinds,) = clusters(children)
    (only,) = largest(kinds, children.room)
    assert [(len(kind.members), number) for kind, number in only.counts] == [(20, 10)]


def test_too_many_are_refused() -> None:
    """Forty sizes of which about twenty fit: nobody wants that file, and nobody waits for it."""
    children = household([1000 + i * i for i in range(40)], 27_000)
    (kinds,) = clusters(children)
    with pytest.raises(TooManyError):
        largest(kinds, children.room)


def test_cards_are_decided_apart() -> None:
    """Two cards with five of six models each: 6 + 6 alternatives, not 6 × 6."""
    takes = {f"{card}{i}": {card: 10 + i} for card in ("a", "b") for i in range(6)}
    asked = ask(takes, {"a": 65, "b": 65})
    matrix = matrix_of(asked)
    assert sorted(matrix["sets"]) == ["fits", "s1", "s2"]
    assert matrix["sets"]["fits"] == "+s1 & +s2"
    assert len(config.combinations(asked)[0]) == 6
