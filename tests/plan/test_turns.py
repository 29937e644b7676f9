"""Whose turn it is: a switch holds until lab.yaml names another member, or the switched one leaves the group."""

from __future__ import annotations

import contextlib

from hypothesis import given
from hypothesis import strategies as st

from labctl.artefact import HostRoot, Manager, Tree, Unit
from labctl.diagnostics import Severity
from labctl.plan.observed import UnitState
from labctl.plan.turns import Group, Turn, notes, standing, switch
from labctl.workload import Start
from tests.plan.simulate import HOST, Host, Killed

GPU = Group(name="gpu", members=("a", "b", "c"), active="a")
TO_B = Turn(group="gpu", member="b", instead_of="a", at="2026-01-01T00:00:00+00:00", by="ann@desk")


def test_nothing_is_remembered_of_a_lab_that_nobody_switched() -> None:
    found = standing([GPU], [])
    assert (found.active, found.over, found.of(GPU)) == ({}, (), "a")
    assert not notes(found)


def test_a_switch_holds_and_is_said() -> None:
    found = standing([GPU], [TO_B])
    assert (found.active, found.over, found.of(GPU)) == ({"gpu": "b"}, (), "b")
    note = notes(found)["gpu"]
    assert note.severity is Severity.NOTE
    assert note.summary == "group `gpu` was switched by hand to `b`; lab.yaml says `a`"
    assert "labctl switch gpu a" in note.hint


def test_it_is_over_when_lab_yaml_changes_its_mind() -> None:
    for changed in (
        Group(name="gpu", members=("a", "b", "c"), active="c"),
        Group(name="gpu", members=("a", "b", "c"), active="b"),
        Group(name="gpu", members=("a", "c"), active="a"),
        Group(name="gpu", members=("a", "b"), active=None),
    ):
        found = standing([changed], [TO_B])
        assert (found.active, found.over) == ({}, ("gpu",)), changed
    assert standing([], [TO_B]).over == ("gpu",)


def test_of_a_switch_that_was_cut_off_between_hosts_the_latest_counts() -> None:
    later = Turn(group="gpu", member="c", instead_of="a", at="2026-01-02T00:00:00+00:00")
    assert standing([GPU], [later, TO_B]).active == {"gpu": "c"}
    assert standing([GPU], [TO_B, later, TO_B]).active == {"gpu": "c"}


members = st.sampled_from(GPU.members)


@given(st.lists(members, max_size=6))
def test_after_any_switches_it_is_the_last_ones_turn(chosen: list[str]) -> None:
    found = standing([GPU], [])
    for number, member in enumerate(chosen):
        found = switch(found, GPU, member, at=f"{number:03}", by="ann@desk")
        assert found.of(GPU) == member
        # hosts remember exactly that
        assert standing([GPU], found.switched.values()).active == found.active
        assert ("gpu" in found.switched) == (member != GPU.active)


class Watched(Host):
    """A host on which two members of a group never run at the same time."""

    def step(self) -> None:
        super().step()
        up = {name for name, state in self.units.items() if state is UnitState.RUNNING}
        assert len(up & set(GPU.members)) <= 1


def lab(active: str) -> Tree:
    units = [
        Unit(
            host=HOST,
            name=name,
            id=name,
            manager=Manager.SYSTEMD,
            project=f"{name}.service",
            fingerprint=f"{name} {name == active}",
            start=Start.ALWAYS if name == active else Start.ON_DEMAND,
            turns="gpu",
        )
        for name in GPU.members
    ]
    return Tree.of([HostRoot(host=HOST, root="/", state="s", managers=(Manager.SYSTEMD,)), *units])


@given(st.lists(st.tuples(members, st.integers(0, 20)), max_size=4), members)
def test_however_often_it_is_cut_off_two_never_run_and_the_last_one_does(cut: list[tuple[str, int]], last: str) -> None:
    host = Watched()
    for active, fuel in cut:
        host.fuel = fuel
        with contextlib.suppress(Killed):
            host.apply(lab(active), {})
    host.fuel = 1_000
    host.apply(lab(last), {})
    assert {n for n, s in host.units.items() if s is UnitState.RUNNING} == {last}
    assert not host.plan(lab(last), {}).applyable
