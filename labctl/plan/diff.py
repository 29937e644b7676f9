"""Comparing a tree with what was seen on the hosts. Pure: the same two values give the same plan."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from labctl.artefact import Tree
from labctl.plan.digests import context
from labctl.plan.files import compare_leftover, compare_path
from labctl.plan.model import Action, Change, HostPlan, Kind, Plan, Reason, State
from labctl.plan.objects import compare_leftover_object, compare_object, object_name
from labctl.plan.observed import Observed, SecretDigests, SeenHost
from labctl.plan.order import predecessors, start_order
from labctl.plan.units import compare_leftover_unit, compare_unit, taking_turns


def diff(
    tree: Tree,
    observed: Observed,
    secrets: SecretDigests | None = None,
    *,
    lab: str = "",
    lab_digest: str = "",
    destroy: bool = False,
    data: bool = False,
) -> Plan:
    """Return what has to be done so that the hosts are as the tree says.

    Args:
        tree: what is wanted.
        observed: what was seen; a host of the tree that is missing there counts as unreachable.
        secrets: keyed digests of secret files, None when no values are at hand: then a rotated secret goes unseen.
        lab: the lab's name.
        lab_digest: digest of the lab's document.
        destroy: nothing is wanted: everything that labctl owns on the tree's hosts goes.
        data: models that are no longer wanted go, too.
    """
    changes: list[Change] = []
    hosts: dict[str, HostPlan] = {}
    for name in predecessors(tree.roots.values(), backwards=destroy):
        seen = observed.hosts.get(name, SeenHost(host=name, complete=False))
        hosts[name] = HostPlan(complete=seen.complete, to_come=seen.to_come, why=seen.why)
        part = tree.of_host(name)
        if destroy:
            part = Tree(roots=part.roots)
        compare = _diff_host if part.roots[name].cluster is None else _diff_cluster
        changes += compare(part, seen, secrets, data=data) if seen.complete else [_unknown(name)]
    return Plan(
        lab=lab,
        lab_digest=lab_digest,
        tree_digest=tree.digest(),
        hosts=hosts,
        changes=tuple(changes),
        destroy=destroy,
        data=data,
        secrets_known=secrets is not None,
    )


def _unknown(host: str) -> Change:
    return Change(host=host, kind=Kind.HOST, name=host, action=Action.UNKNOWN, reason=Reason.UNREACHABLE)


def _diff_host(tree: Tree, seen: SeenHost, secrets: SecretDigests | None, *, data: bool) -> list[Change]:
    """Return one host's changes in the order in which apply does them."""
    artefacts = {a.path: a for a in tree.artefacts}
    paths = [compare_path(a, seen, secrets) for a in tree.artefacts]
    images = list(_images(tree, seen))
    content = [*_of(paths, Kind.MODEL), *_of(paths, Kind.SECRET), *_of(paths, Kind.FILE), *images]
    wanted = {u.name for u in tree.units}
    gone = [compare_leftover_unit(seen, name) for name in sorted(seen.manifest.units.keys() - wanted)]
    turns = taking_turns(tree.units)
    units = [compare_unit(u, seen, artefacts, content, secrets, turns) for u in start_order(tree.units)]
    units.sort(key=lambda change: change.action is not Action.STOP)
    leftovers = [
        compare_leftover(seen, path, entry, data=data)
        for path, entry in sorted(seen.manifest.entries.items())
        if path not in artefacts
    ]
    return [*_with_restarts(content, units), *gone, *units, *leftovers, *_old_images(tree, seen)]


def _diff_cluster(tree: Tree, seen: SeenHost, secrets: SecretDigests | None, *, data: bool) -> list[Change]:
    """Return a cluster's changes: its objects, wave by wave, then what is no longer wanted."""
    root = tree.roots[seen.host]
    ordered = sorted(tree.objects, key=lambda o: (o.wave, o.path))
    wanted = [compare_object(item, root, seen, secrets) for item in ordered]
    known = {object_name(item, root) for item in ordered}
    there = {name for name, found in seen.objects.items() if found.exists}
    left = sorted((there | seen.manifest.entries.keys()) - known)
    return [*wanted, *(compare_leftover_object(seen, name, data=data) for name in left)]


def _of(changes: Sequence[Change], kind: Kind) -> list[Change]:
    return [c for c in changes if c.kind is kind]


def _with_restarts(content: Sequence[Change], units: Sequence[Change]) -> Iterator[Change]:
    again = [u for u in units if u.action in {Action.RESTART, Action.REPLACE, Action.UPDATE}]
    for change in content:
        restarts = tuple(u.name for u in again if change.name in u.because)
        yield replace(change, restarts=restarts)


def _images(tree: Tree, seen: SeenHost) -> Iterator[Change]:
    for image in tree.images:
        goal, present = context(tree, image), seen.images.get(image.reference)
        known = image.reference in seen.manifest.images
        if present is None:
            action, reason = Action.CREATE, Reason.MISSING if known else Reason.NEW
        elif present != goal:
            action, reason = Action.UPDATE, Reason.CONTENT_CHANGED if known else Reason.FOREIGN
        else:
            action, reason = Action.NOOP, Reason.IN_PLACE
        yield Change(
            host=image.host,
            kind=Kind.IMAGE,
            name=image.reference,
            action=action,
            reason=reason,
            before=None if present is None else State(digest=present),
            after=State(digest=goal),
            origin=image.origin,
        )


def _old_images(tree: Tree, seen: SeenHost) -> Iterator[Change]:
    wanted = {i.reference for i in tree.images}
    for reference in sorted(seen.manifest.images.keys() - wanted):
        present = seen.images.get(reference)
        yield Change(
            host=seen.host,
            kind=Kind.IMAGE,
            name=reference,
            action=Action.DELETE,
            reason=Reason.MISSING if present is None else Reason.NO_LONGER_WANTED,
            before=None if present is None else State(digest=present),
        )
