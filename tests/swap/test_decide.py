"""Decisions, by example and as properties of a made-up world."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from labctl.swap.view import Phase, Rules, Server
from tests.swap.world import World

GB = 1 << 30


def world(sizes: dict[str, int], card: int, *, patience: float = 20.0, slots: int = 1, cost: float = 2.0) -> World:
    """Return a world with a server for each name on one card."""
    servers = {
        name: Server(name=name, memory={"gpu": size}, slots=slots, start_cost=cost) for name, size in sizes.items()
    }
    return World(servers, {name: (name,) for name in sizes}, Rules(cards={"gpu": card}, patience=patience))


def test_what_fits_stays_resident() -> None:
    """Two models that fit together are loaded once each, however often one asks in turn."""
    it = world({"a": 4, "b": 5}, 9)
    for i in range(20):
        it.ask(i * 5.0, "ab"[i % 2], 1.0)
    it.run()
    assert it.starts == ["a", "b"]
    assert all(r.answered is not None for r in it.asked)


def test_the_cheapest_to_bring_back_goes() -> None:
    """Of two idle servers the one that starts faster makes room."""
    it = world({"slow": 4, "fast": 4, "new": 4}, 8)
    it.change("slow", start_cost=60.0)
    for i, name in enumerate(("slow", "fast", "new", "slow")):
        it.ask(i * 100.0, name, 1.0)
    it.run()
    assert it.starts == ["slow", "fast", "new"]


def test_a_big_one_evicts_several() -> None:
    """A model that needs the whole card makes everybody go."""
    it = world({"a": 3, "b": 3, "big": 9}, 9)
    for i, name in enumerate(("a", "b", "big")):
        it.ask(i * 10.0, name, 1.0)
    it.run()
    assert it.starts == ["a", "b", "big"]
    assert [s.name for s in it.servers.values() if s.phase is Phase.READY] == ["big"]


def test_requests_in_turn_are_collated() -> None:
    """Forty requests for two models in turn, all at once: each is loaded once."""
    it = world({"a": 6, "b": 6}, 9, patience=1000)
    for i in range(40):
        it.ask(0.0, "ab"[i % 2], 0.5)
    it.run()
    assert it.starts == ["a", "b"]


def test_patience_ends_overtaking() -> None:
    """A model in constant use gives way when somebody has waited long enough, and not before."""
    it = world({"a": 6, "b": 6}, 9, patience=10)
    for i in range(100):
        it.ask(i * 0.9, "a", 1.0)
    late = it.ask(5.0, "b", 1.0)
    it.run()
    assert late.sent is not None
    assert 15.0 <= late.sent <= 15.0 + 1.0 + 0.5 + 2.0 + 0.1


def test_pinned_stays_and_the_hopeless_is_told() -> None:
    """Nobody waits for a server that can never fit."""
    it = world({"pinned": 6, "big": 6}, 9)
    it.change("pinned", pinned=True, phase=Phase.READY)
    big = it.ask(0.0, "big", 1.0)
    it.run()
    assert big.refused
    assert it.servers["pinned"].phase is Phase.READY


def test_idle_servers_go_after_their_ttl() -> None:
    """The ttl counts from the last request."""
    it = world({"a": 4}, 9)
    it.change("a", ttl=30.0)
    it.ask(0.0, "a", 1.0)
    it.at(100.0, "nothing", None)
    it.run()
    assert it.servers["a"].phase is Phase.STOPPED


def test_an_exclusive_group_takes_turns() -> None:
    """Members of a group are never resident together, although both would fit."""
    it = world({"a": 1, "b": 1}, 9)
    for name in ("a", "b"):
        it.change(name, exclusive=frozenset({"g"}))
    for i in range(6):
        it.ask(i * 10.0, "ab"[i % 2], 1.0)
    it.run()
    assert it.starts == ["a", "b", "a", "b", "a", "b"]


def test_who_leaves_lets_the_other_stay() -> None:
    """A server that drains for somebody who left takes requests again."""
    it = world({"a": 6, "b": 6}, 9, patience=1)
    it.ask(0.0, "a", 30.0)
    gone = it.ask(1.0, "b", 1.0)
    it.at(10.0, "leave", gone)
    it.ask(40.0, "a", 1.0)
    it.run()
    assert it.starts == ["a"]


def test_a_failing_start_is_not_tried_at_once() -> None:
    """Who waits for it is told; the next one is told, too, until the time to retry has come."""
    it = world({"a": 6}, 9)
    it.fails = frozenset({"a"})
    first, second, third = it.ask(0.0, "a", 1.0), it.ask(3.0, "a", 1.0), it.ask(20.0, "a", 1.0)
    it.run()
    assert first.refused
    assert second.refused
    assert third.refused
    assert it.starts == ["a", "a"]


def test_nobody_waits_longer_than_that() -> None:
    """Whatever keeps a server from coming: who has waited for the longest time that there is gets an answer."""
    it = world({"a": 6, "b": 6}, 9, patience=5)
    it.rules = replace(it.rules, longest=60.0)
    it.ask(0.0, "a", 1000.0)
    late = it.ask(1.0, "b", 1.0)
    it.run()
    assert late.refused
    assert late.answered == 61.0


def test_told_to_stop_it_does() -> None:
    """A server that drains because somebody said so is not kept by who asks for it: he has it started anew."""
    it = world({"a": 6}, 9)
    it.ask(0.0, "a", 20.0)
    it.run(until=5.0)
    it.change("a", phase=Phase.DRAINING, dismissed=True)
    later = it.ask(6.0, "a", 1.0)
    it.run(until=22.0)
    assert it.servers["a"].phase is not Phase.READY
    it.change("a", dismissed=False)
    it.run()
    assert it.starts == ["a", "a"]
    assert later.answered is not None


NAMES = ("a", "b", "c", "d")


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """A world with up to four servers on up to two cards, shared names, and people who ask and leave."""
    cards = {"x": draw(st.integers(4, 12)), "y": draw(st.integers(4, 12))}
    names = NAMES[: draw(st.integers(1, 4))]
    servers = {
        name: Server(
            name=name,
            memory={
                card: draw(st.integers(1, 8)) for card in draw(st.lists(st.sampled_from("xy"), min_size=1, unique=True))
            },
            slots=draw(st.integers(1, 3)),
            start_cost=draw(st.floats(0.1, 20)),
            ttl=draw(st.none() | st.floats(1, 50)),
            exclusive=frozenset(draw(st.lists(st.sampled_from("gh"), unique=True, max_size=1))),
        )
        for name in names
    }
    routes = {name: (name,) for name in names} | {"any": names}
    rules = Rules(cards=cards, patience=draw(st.floats(0, 30)), min_residency=draw(st.sampled_from([0.0, 5.0])))
    it = World(servers, routes, rules, fails=frozenset(draw(st.lists(st.sampled_from(NAMES), max_size=1))))
    for _ in range(draw(st.integers(1, 25))):
        request = it.ask(draw(st.floats(0, 60)), draw(st.sampled_from(sorted(routes))), draw(st.floats(0.01, 15)))
        if draw(st.integers(0, 4)) == 0:
            it.at(request.arrived + draw(st.floats(0, 30)), "leave", request)
    return it


@settings(max_examples=300, deadline=None)
@given(worlds())
def test_everybody_is_answered_and_no_card_is_overrun(it: World) -> None:
    """Whatever happens: within the budget (checked at each step), nobody busy stopped, and an answer for everybody."""
    it.run()
    for request in it.asked:
        assert request.left or request.answered is not None, request


@settings(max_examples=200, deadline=None)
@given(worlds())
def test_nobody_waits_for_ever(it: World) -> None:
    """A bound for every wait: patience, and the time that starts, stops and answers of the requests before it take."""
    it.run()
    work = sum(r.work for r in it.asked)
    loads = sum(s.start_cost + 0.5 + it.rules.patience + it.rules.min_residency + 5.0 for s in it.servers.values())
    for request in it.asked:
        if request.sent is not None:
            assert request.sent - request.arrived <= work + loads * (len(it.asked) + 1)
