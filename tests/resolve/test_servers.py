"""Servers: names, ports, shares of limits, start order."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labctl.resolve.order import Starter, start_order
from labctl.resolve.ports import FIRST, LAST, drawn_port
from labctl.resolve.servers import share
from tests.resolve import labs

FAR = {"box": labs.box("RTX 3090", "RTX 3090"), "front": labs.box(address="192.168.1.6")}
GATEWAY = {"engine": "litellm", "host": "front"}


def on(*gpus: int, **keys: Any) -> dict[str, Any]:
    return labs.llama(context=1024, on={"host": "box", "gpus": tuple(gpus)}, **keys)


@given(st.integers(1, 10_000), st.integers(1, 64))
def test_shares_add_up(total: int, count: int) -> None:
    shares = [share(total, i, count) or 0 for i in range(count)]
    assert sum(shares) == total
    assert max(shares) - min(shares) <= 1


def test_limits_are_shared_out() -> None:
    four = {"box": labs.box("RTX 3090", "RTX 3090", "RTX 3090", "RTX 3090")}
    limits = {"rpm": 45, "parallel": 4}
    found = labs.rendered(labs.lab({"chat": on(0, 1, 2, 3, limits=limits)}, four))
    assert [s.rpm for s in found.placed.servers] == [12, 11, 11, 11]
    assert [(e.rpm, e.parallel) for e in found.endpoints] == [(12, 1), (11, 1), (11, 1), (11, 1)]


def test_a_limit_below_one_per_server_is_refused() -> None:
    found = labs.taken(labs.lab({"chat": on(0, 1, limits={"rpm": 1, "tpm": 100})}))
    (problem,) = [d for d in found.diagnostics if d.is_error]
    assert (problem.code, problem.path) == ("LAB025", ("deployments", "chat", "limits", "rpm"))


NAMES = st.sets(st.from_regex(r"[a-z]{2,8}", fullmatch=True), min_size=1, max_size=4)


@settings(max_examples=15, deadline=None)
@given(NAMES, st.permutations(["alpha", "beta", "gamma"]))
def test_no_entry_moves_anothers_port(more: set[str], order: list[str]) -> None:
    base = {name: on(0) for name in order}
    before = {s.name: s.port for s in labs.placed(labs.lab(base, FAR)).servers}
    after = {s.name: s.port for s in labs.placed(labs.lab({**{n: on(1) for n in more}, **base}, FAR)).servers}
    assert {n: after[n] for n in before if n not in more} == {n: p for n, p in before.items() if n not in more}


@given(st.text(max_size=20), st.text(max_size=20))
def test_drawn_ports_are_below_the_ephemeral_ones(host: str, name: str) -> None:
    assert FIRST <= drawn_port(host, name) <= LAST < 32768


def test_declared_ports_count_up_on_each_host() -> None:
    hosts = {"a": labs.box("RTX 3090", "RTX 3090", address="10.0.0.1"), "b": labs.box("RTX 3090", address="10.0.0.2")}
    places = ({"host": "a", "gpus": "all"}, {"host": "b", "gpus": "all"})
    found = labs.placed(labs.lab({"chat": labs.llama(on=places, port=8080)}, hosts))
    assert {s.name: s.port for s in found.servers} == {
        "chat-a-gpu0": 8080,
        "chat-a-gpu1": 8081,
        "chat-b-gpu0": 8080,
    }


@pytest.mark.parametrize(
    ("deployments", "services", "who"),
    [
        ({"a": on(0, 1, port=8080), "b": on(0, port=8081)}, {}, "b"),
        ({"a": on(0, port=5432)}, {"postgres": {"host": "box", "port": 5432}}, "postgres"),
    ],
)
def test_ports_that_clash(deployments: dict[str, Any], services: dict[str, Any], who: str) -> None:
    found = labs.taken(labs.lab(deployments, FAR, services=services, gateway=GATEWAY))
    (problem,) = [d for d in found.diagnostics if d.is_error]
    assert problem.code == "LAB060"
    assert who in problem.summary


def test_a_drawn_port_of_a_service_counts_too() -> None:
    """PostgreSQL on another host than the gateway is published at a port that labctl draws."""
    port = drawn_port("box", "postgres")
    data = labs.lab(
        {"a": on(0, port=port)},
        FAR,
        services={"postgres": {"host": "box"}},
        gateway={**GATEWAY, "keys": {"database": "postgres"}},
    )
    assert labs.codes(labs.written(data)) == ["LAB060"]


@pytest.mark.parametrize(
    ("deployments", "services"),
    [
        ({"chat": on(0, 1), "chat-gpu0": on(1)}, {}),
        ({"chat": on(0, 1)}, {"chat-gpu1": {"kind": "postgres", "host": "box"}}),
        ({"gpu-power": on(0)}, {}),
    ],
)
def test_names_of_servers_are_their_own(deployments: dict[str, Any], services: dict[str, Any]) -> None:
    found = labs.taken(labs.lab(deployments, services=services))
    assert labs.codes(found) == ["LAB054"]


def test_one_server_has_its_deployments_name() -> None:
    found = labs.placed(labs.lab({"chat": on(0), "chat-two": on(0, 1)}))
    assert [s.name for s in found.servers] == ["chat", "chat-two-gpu0", "chat-two-gpu1"]


STARTERS = st.lists(
    st.builds(
        Starter,
        name=st.from_regex(r"[a-z]{1,4}", fullmatch=True),
        host=st.sampled_from("ab"),
        cards=st.frozensets(st.integers(0, 3), max_size=3),
        measures=st.booleans(),
        bytes=st.integers(0, 5),
    ),
    unique_by=lambda s: s.name,
    max_size=10,
)


@given(STARTERS, st.randoms(use_true_random=False))
def test_servers_on_one_card_start_one_after_the_other(starters: list[Starter], random: Any) -> None:
    after = start_order(starters)
    before: dict[str, set[str]] = {}

    def reach(name: str, path: tuple[str, ...] = ()) -> set[str]:
        assert name not in path, "a cycle"
        if name not in before:
            before[name] = {m for n in after[name] for m in (n, *reach(n, (*path, name)))}
        return before[name]

    for one, two in combinations(starters, 2):
        first = one.name in reach(two.name)
        assert not (first and two.name in reach(one.name))
        if one.host == two.host and one.cards & two.cards:
            assert first or two.name in reach(one.name)
            if one.measures != two.measures:
                assert first == one.measures
        elif one.host != two.host:
            assert not first
    mixed = list(starters)
    random.shuffle(mixed)
    assert start_order(mixed) == after


def test_servers_that_are_not_started_are_waited_for_by_nobody() -> None:
    servers = {s.name: s for s in labs.placed(labs.lab({"c": on(0), "d": on(0, start="on-demand")})).servers}
    assert {n for n, s in servers.items() if s.on_demand} == {"d"}
    assert {n: s.after for n, s in servers.items()} == {"c": (), "d": ()}


def test_whose_turn_it_is_changes_nobodys_order() -> None:
    """Otherwise a switch would restart the neighbours."""
    for active, resting in (("a", "b"), ("b", "a")):
        groups = {"turns": {"exclusive": ("a", "b"), "active": active}}
        data = labs.lab({"a": on(0), "b": on(0), "c": on(0)}, groups=groups)
        servers = {s.name: s for s in labs.placed(data).servers}
        assert {n for n, s in servers.items() if s.on_demand} == {resting}
        assert {n: s.after for n, s in servers.items()} == {"a": (), "b": (), "c": ("a", "b")}
