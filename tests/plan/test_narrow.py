"""The part of a plan that is about some units."""

from __future__ import annotations

import pytest

from labctl.artefact import File, HostRoot, Image, Manager, ModelFile, Tree, Unit
from labctl.plan.diff import diff
from labctl.plan.model import Action, Plan
from labctl.plan.narrow import narrow
from labctl.plan.observed import Entry, EntryKind, Manifest, Observed, SeenFile, SeenHost


def unit(name: str, *files: str, after: tuple[str, ...] = ()) -> Unit:
    return Unit(
        host="h", name=name, id=name, manager=Manager.COMPOSE, project="compose.yaml", fingerprint="f", files=files,
        after=after,
    )  # fmt: skip


TREE = Tree.of(
    [
        HostRoot(host="h", root="/", state="state"),
        File(host="h", path="compose.yaml", content=b"x"),
        File(host="h", path="a.conf", content=b"x"),
        File(host="h", path="b.conf", content=b"x"),
        ModelFile(host="h", path="m/a", url="hf://a"),
        ModelFile(host="h", path="m/b", url="hf://b"),
        Image(host="h", reference="img", context="images/img"),
        File(host="h", path="images/img/Dockerfile", content=b"x"),
        unit("a", "a.conf", "m/a", after=("first",)),
        unit("b", "b.conf", "m/b"),
        unit("first"),
        HostRoot(host="other", root="/", state="state"),
        File(host="other", path="x", content=b"x"),
    ]
)


def everything() -> Plan:
    leftover = Entry(kind=EntryKind.FILE, digest="d")
    seen = SeenHost(host="h", manifest=Manifest(entries={"old": leftover}), files={"old": SeenFile()})
    return diff(TREE, Observed({"h": seen, "other": SeenHost(host="other")}))


def test_a_unit_what_it_waits_for_and_what_it_is_made_of() -> None:
    narrowed = narrow(everything(), TREE, ["a"])
    assert {c.address for c in narrowed.todo} == {
        "h:a.conf", "h:compose.yaml", "h:m/a", "h:images/img/Dockerfile", "h image img", "h/a", "h/first",
    }  # fmt: skip
    assert narrowed.only == ("a",)


def test_what_is_no_longer_wanted_stays() -> None:
    assert any(c.action is Action.DELETE for c in everything().changes)
    assert not [c for c in narrow(everything(), TREE, ["a"]).changes if c.action is Action.DELETE]


def test_nothing_named_is_everything() -> None:
    assert narrow(everything(), TREE, ()) == everything()


@pytest.mark.parametrize("once", [["a"], ["b", "first"], ["nobody"]])
def test_it_is_a_part_in_the_same_order_and_twice_is_once(once: list[str]) -> None:
    narrowed = narrow(everything(), TREE, once)
    assert [c for c in everything().changes if c in narrowed.changes] == list(narrowed.changes)
    assert narrow(narrowed, TREE, once) == narrowed
