"""Placement by budget: deterministic, stable, and never more than a card holds."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labctl.placed import PlacedGpu, PlacedHost, Places
from labctl.quantity import GIB
from labctl.resolve.ledger import taken as sum_of
from labctl.resolve.slots import Claimed, Packer, Slot, Wanted
from tests.resolve import labs

PLACES = Places(root="/", config="etc/labctl", state="var/lib/labctl", models="/srv/models")


def host(name: str, *sizes: int) -> PlacedHost:
    gpus = tuple(PlacedGpu(index=i, model=f"{s} GB", vendor="nvidia", memory=s * GIB) for i, s in enumerate(sizes))
    return PlacedHost(name=name, lab="t", address="h", bind="h", target="compose", places=PLACES, gpus=gpus)


def wanted(name: str, size: int, **keys: Any) -> Wanted:
    return Wanted(**{"name": name, "servers": 1, "span": 1, "group": None, "needs": lambda *_: size * GIB, **keys})


def pack(hosts: dict[str, PlacedHost], everything: list[Wanted]) -> dict[str, list[Slot]]:
    packer = Packer(hosts)
    found = {w.name: packer.place(w) for w in everything}
    return {name: slots for name, slots in found.items() if isinstance(slots, list)}


HOSTS = st.dictionaries(st.sampled_from("abcd"), st.lists(st.sampled_from([8, 16, 24]), max_size=4), min_size=1).map(
    lambda sizes: {name: host(name, *cards) for name, cards in sizes.items()}
)
ENTRIES = st.dictionaries(st.sampled_from("pqrstuvw"), st.integers(1, 20), max_size=6)


@given(HOSTS, ENTRIES, st.integers(1, 3))
def test_no_card_is_overfull(hosts: dict[str, PlacedHost], entries: dict[str, int], servers: int) -> None:
    found = pack(hosts, [wanted(n, s, servers=servers) for n, s in entries.items()])
    for name, box in hosts.items():
        for gpu in box.gpus:
            here = [n for n, slots in found.items() for s in slots if (s.host.name, gpu) == (name, s.gpus[0])]
            assert sum(entries[n] for n in here) * GIB <= gpu.memory
    assert all(len(slots) == servers for slots in found.values())


@given(HOSTS, ENTRIES)
def test_the_order_of_hosts_means_nothing(hosts: dict[str, PlacedHost], entries: dict[str, int]) -> None:
    everything = [wanted(n, s) for n, s in entries.items()]
    assert pack(hosts, everything) == pack(dict(reversed(hosts.items())), everything)


@given(HOSTS, ENTRIES)
def test_a_placement_moves_only_when_its_card_is_filled(hosts: dict[str, PlacedHost], entries: dict[str, int]) -> None:
    """Another deployment, placed before it, can only take the card it had; it never makes it prefer another one."""
    mine, other = wanted("mine", 6), [wanted(n, s) for n, s in entries.items()]
    alone = pack(hosts, [mine]).get("mine")
    packer = Packer(hosts)
    for entry in other:
        packer.place(entry)
    found = packer.place(mine)
    if alone is not None and packer.free(alone[0].host, alone[0].gpus[0]) >= (0 if found == alone else 6 * GIB):
        assert found == alone


def test_the_smallest_kind_of_card_that_holds_it() -> None:
    found = pack({"a": host("a", 24, 8), "b": host("b", 16)}, [wanted("x", 6), wanted("y", 10)])
    assert (found["x"][0].host.name, found["x"][0].gpus[0].index) == ("a", 1)
    assert found["y"][0].host.name == "b"


def test_servers_that_span_cards_get_cards_of_one_kind_on_one_host() -> None:
    hosts = {"a": host("a", 24, 8, 24), "b": host("b", 24)}
    slots = pack(hosts, [wanted("x", 20, span=2)])["x"]
    assert [g.index for g in slots[0].gpus] == [0, 2]
    assert slots[0].label == "a-gpu0-2"
    refused = Packer(hosts).place(wanted("x", 20, span=3))
    assert not isinstance(refused, list)
    assert "it spans 3 cards of a kind, and there are 2" in refused.detail


def test_deployments_that_take_turns_count_by_the_largest() -> None:
    hosts = {"a": host("a", 24)}
    turns = [wanted(n, 20, group="turns") for n in "xyz"]
    assert set(pack(hosts, turns)) == {"x", "y", "z"}
    assert set(pack(hosts, [*turns, wanted("beside", 5)])) == {"x", "y", "z"}


@given(st.lists(st.tuples(st.sampled_from([None, "g", "h"]), st.sampled_from("abc"), st.integers(0, 9))))
def test_groups_count_by_their_largest_deployment(claims: list[tuple[str | None, str, int]]) -> None:
    entries = [Claimed(deployment=d, group=g, total=t) for g, d, t in claims]
    alone = sum(t for g, _, t in claims if g is None)
    sums = {g: {d: sum(t for a, b, t in claims if (a, b) == (g, d)) for d in "abc"} for g in "gh"}
    assert sum_of(entries) == alone + sum(max(members.values()) for members in sums.values())


def test_an_impossible_server_leaves_nothing_behind() -> None:
    packer = Packer({"a": host("a", 24)})
    assert not isinstance(packer.place(wanted("x", 10, servers=3)), list)
    assert isinstance(packer.place(wanted("y", 24)), list)


MIXED = {
    "cpu": labs.box(address="10.0.0.1"),
    "small": labs.box("RTX 3070", "RTX 3070", address="10.0.0.2"),
    "big": labs.box("RTX 3090", "RTX 3090", address="10.0.0.3"),
}


def test_hosts_without_cards_are_passed_over() -> None:
    found = labs.placed(labs.lab({"chat": labs.llama(replicas=3)}, MIXED))
    assert {h for h, _ in labs.where(found).values()} <= {"small", "big"}
    assert len(found.servers) == 3


def test_a_lab_without_cards_runs_on_its_hosts() -> None:
    hosts = {n: labs.box(address=f"10.0.0.{i}") for i, n in enumerate(("a", "b", "c"))}
    found = labs.placed(labs.lab({f"chat{i}": labs.llama() for i in range(8)}, hosts))
    assert len({h for h, _ in labs.where(found).values()}) > 1
    assert all(gpus == () for _, gpus in labs.where(found).values())


@settings(max_examples=15, deadline=None)
@given(st.sets(st.sampled_from(["one", "two", "three", "four"]), min_size=1), st.data())
def test_an_unrelated_entry_moves_nothing(names: set[str], data: st.DataObject) -> None:
    """The cards have room for all of them: then each has the place it would have alone."""
    hosts = {"a": labs.box("RTX 3090", "RTX 3090", "RTX 3090"), "b": labs.box("RTX 3090", address="10.0.0.9")}
    deployments = {name: labs.llama(context=1024) for name in names}
    together = labs.where(labs.placed(labs.lab(deployments, hosts)))
    one = data.draw(st.sampled_from(sorted(names)))
    assert labs.where(labs.placed(labs.lab({one: deployments[one]}, hosts)))[one] == together[one]


def test_two_cards_per_server() -> None:
    found = labs.placed(labs.lab({"chat": labs.llama(gpus_per_server=2)}))
    assert labs.where(found) == {"chat": ("box", (0, 1))}


@pytest.mark.parametrize("key", ["replicas", "gpus_per_server"])
def test_what_on_says_is_not_said_twice(key: str) -> None:
    from labctl.model.lab import read_lab  # noqa: PLC0415
    from labctl.registry import Registry  # noqa: PLC0415

    data = labs.lab({"chat": labs.llama(on={"host": "box", "gpus": (0,)}, **{key: 2})})
    (problem,) = read_lab(data, Registry()).diagnostics
    assert problem.code == "LAB027"
    assert key in problem.summary


def test_a_refusal_names_each_card_and_why() -> None:
    hosts = {"p": labs.box("P106-100"), "big": labs.box("RTX 3090", address="10.0.0.3")}
    deployments = {"v": {"model": "qwen", "engine": "vllm", "vram": "40 GiB"}}
    (problem,) = [d for d in labs.taken(labs.lab(deployments, hosts)).diagnostics if d.code == "LAB063"]
    assert "p GPU 0 (P106-100): " in problem.detail
    assert "needs 40.4 GiB, 23.6 GiB free" in problem.detail


def test_a_container_has_to_state_its_memory_to_be_placed() -> None:
    found = labs.taken(labs.lab({"x": {"engine": "container", "image": "a/b:1"}}))
    (problem,) = [d for d in found.diagnostics if d.code == "LAB063"]
    assert "vram: {declared: 4 GiB}" in problem.detail
