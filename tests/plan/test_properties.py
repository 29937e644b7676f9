"""What holds for every tree and every host."""

from __future__ import annotations

import string
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from labctl.artefact import File, HostRoot, Manager, ModelFile, SecretFile, Tree, Unit
from labctl.plan.digests import shape
from labctl.plan.model import Action, Kind, Plan, moved
from labctl.plan.observed import Manifest, SecretDigests, UnitState
from labctl.plan.wire import manifest_from_json, manifest_to_json, plan_from_json, plan_to_json
from labctl.workload import SecretRef, SecretText, Start
from tests.plan.simulate import HOST, Host, Killed

NAMES = st.sampled_from(["a", "b", "c", "d", "e"])
TEXTS = st.sampled_from(["one", "two", "three"])
MODES = st.sampled_from([0o600, 0o644, 0o755])


@st.composite
def trees(draw: st.DrawFn) -> Tree:
    """Draw a small lab on one host."""
    items: list[Any] = [HostRoot(host=HOST, root="/", state="state")]
    items += [
        File(host=HOST, path=f"f/{name}", content=draw(TEXTS).encode(), mode=draw(MODES))
        for name in draw(st.sets(NAMES))
    ]
    for name in draw(st.sets(NAMES, max_size=2)):
        entries = {draw(TEXTS).upper(): SecretText((SecretRef("KEY"),))}
        items.append(SecretFile(host=HOST, path=f"s/{name}", entries=entries))
    items += [
        ModelFile(host=HOST, path=f"m/{name}", url=f"https://x/{draw(TEXTS)}", sha256=draw(TEXTS))
        for name in draw(st.sets(NAMES, max_size=2))
    ]
    paths = [item.path for item in items[1:]]
    names = sorted(draw(st.sets(NAMES)))
    for index, name in enumerate(names):
        items.append(
            Unit(
                host=HOST,
                name=name,
                id=name,
                manager=draw(st.sampled_from([Manager.COMPOSE, Manager.SUPERVISOR])),
                project="p",
                # a task is rendered otherwise than a server: one is never taken for the other
                fingerprint=f"{start} {draw(TEXTS)}"
                if (start := draw(st.sampled_from(Start))) is Start.ONCE
                else draw(TEXTS),
                files=tuple(draw(st.sets(st.sampled_from(paths)))) if paths else (),
                after=tuple(draw(st.sets(st.sampled_from(names[index + 1 :])))) if names[index + 1 :] else (),
                start=start,
            )
        )
    return Tree.of(items)


@st.composite
def secrets_of(draw: st.DrawFn, tree: Tree) -> SecretDigests:
    """Draw the digests of a tree's secret files: of their names and of one of three values."""
    files = [a for a in tree.artefacts if isinstance(a, SecretFile)]
    return {(HOST, f.path): shape(f) + draw(TEXTS) for f in files}


@st.composite
def strangers(draw: st.DrawFn) -> Host:
    """Draw a host with files that are not labctl's."""
    paths = st.sampled_from([f"{k}/{n}" for k in "fsm" for n in "abcdexyz"])
    files = draw(st.dictionaries(paths, st.tuples(TEXTS, MODES), max_size=4))
    return Host(files=dict(files))


@given(st.data(), trees(), strangers())
def test_applying_twice_changes_nothing(data: st.DataObject, tree: Tree, host: Host) -> None:
    secrets = data.draw(secrets_of(tree))
    host.apply(tree, secrets)
    again = host.plan(tree, secrets)
    assert not again.applyable, plan_to_json(again)
    assert {c.action for c in again.changes} <= {Action.NOOP}


@settings(max_examples=60)
@given(st.data(), trees(), trees(), trees(), strangers(), st.integers(0, 60), st.integers(0, 60))
def test_killed_anywhere_it_converges(
    data: st.DataObject, first: Tree, second: Tree, last: Tree, host: Host, early: int, late: int
) -> None:
    """Two applies of two labs are killed at any step; the third lab's apply leaves exactly the third lab."""
    foreign = set(host.files)
    for tree, fuel in ((first, early), (second, late)):
        host = host.refuelled(fuel)
        try:
            host.apply(tree, data.draw(secrets_of(tree)))
        except Killed:
            continue
    host = host.refuelled()
    secrets = data.draw(secrets_of(last))
    host.apply(last, secrets)
    assert not host.plan(last, secrets).applyable
    wanted = {a.path for a in last.artefacts}
    models = {p for p in host.files if p.startswith("m/")}
    assert set(host.files) - foreign - models == wanted - foreign - models
    assert {n for n, s in host.units.items() if s is UnitState.RUNNING} >= {
        u.name for u in last.units if u.start is Start.ALWAYS
    }
    tasks = {u.name for u in last.units if u.start is Start.ONCE}
    # a task that ended well may be gone: its removal was begun, and nobody wanted it to be forgotten
    assert {host.units[name] for name in tasks & set(host.units)} <= {UnitState.FINISHED}
    assert set(host.units) | tasks == {u.name for u in last.units}
    for unit in last.units:
        fingerprint, inputs = host.truth[unit.name]
        assert fingerprint == unit.fingerprint
        # a file that the unit no longer names, with its definition unchanged, is no reason to restart it
        assert {p: inputs.get(p) for p in unit.files} == {p: host.files[p][0] for p in unit.files}


@given(st.data(), trees(), trees(), strangers())
def test_only_what_the_manifest_owns_is_deleted(data: st.DataObject, first: Tree, second: Tree, host: Host) -> None:
    host.apply(first, data.draw(secrets_of(first)))
    owned = set(host.manifest.entries)
    plan = host.plan(second, data.draw(secrets_of(second)))
    deleted = {c.name for c in plan.changes if c.action is Action.DELETE and c.kind is not Kind.UNIT}
    assert deleted <= owned


@given(st.data(), trees(), strangers())
def test_destroy_leaves_what_was_not_ours(data: st.DataObject, tree: Tree, host: Host) -> None:
    foreign = dict(host.files)
    secrets = data.draw(secrets_of(tree))
    host.apply(tree, secrets)
    owned = set(host.manifest.entries)
    host.apply(tree, secrets, destroy=True)
    assert set(host.files) == set(foreign) - owned
    assert host.units == {}
    assert host.manifest == Manifest()


@given(st.data(), trees(), strangers())
def test_units_come_after_what_they_need(data: st.DataObject, tree: Tree, host: Host) -> None:
    plan = host.plan(tree, data.draw(secrets_of(tree)))
    order = [c.name for c in plan.changes if c.kind is Kind.UNIT]
    for unit in tree.units:
        for needed in unit.after:
            assert order.index(needed) < order.index(unit.name)


@given(st.data(), trees(), trees(), strangers())
def test_json_carries_everything(data: st.DataObject, first: Tree, second: Tree, host: Host) -> None:
    host.apply(first, data.draw(secrets_of(first)))
    plan = host.plan(second, data.draw(secrets_of(second)))
    again = plan_from_json(plan_to_json(plan))
    assert again == plan
    assert moved(plan, again) == ()
    assert manifest_from_json(manifest_to_json(host.manifest)) == host.manifest


@given(st.data(), trees(), st.sampled_from(string.ascii_lowercase[:5]))
def test_a_plan_is_stale_once_a_file_it_touches_moved(data: st.DataObject, tree: Tree, name: str) -> None:
    host, secrets = Host(), data.draw(secrets_of(tree))
    plan: Plan = host.plan(tree, secrets)
    path = f"f/{name}"
    host.files[path] = ("edited", 0o644)
    concerned = any(c.name == path for c in plan.changes)
    assert bool(moved(plan, host.plan(tree, secrets))) == concerned
