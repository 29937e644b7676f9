"""Finding everything of a lab in a cluster by its label, and keeping the ledger of what was applied."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Final

from labctl.artefact import Cluster, HostRoot, Object, Tree
from labctl.kube import record
from labctl.kube.api import Api, ApiError, Value
from labctl.kube.kinds import Kinds, Resource, discover
from labctl.kube.prepare import LAB, owner
from labctl.plan.objects import name_of, object_name
from labctl.plan.observed import Entry, EntryKind, Manifest

ALWAYS_LISTED: Final = ("v1", "PersistentVolumeClaim")
"""What stateful sets make by themselves."""


def cluster_of(root: HostRoot) -> Cluster:
    """Return a root's cluster; ValueError for a root that has none."""
    if root.cluster is None:
        raise ValueError(root.host)
    return root.cluster


def namespaces(api: Api, cluster: Cluster, tree: Tree) -> dict[str, bool]:
    """Return which of the namespaces that matter exist; one that may not be looked at is taken to."""
    names = {cluster.namespace} | {o.value["metadata"].get("namespace") for o in tree.objects}
    wanted = sorted(n for n in names if n)

    def exists(name: str) -> bool:
        try:
            return api.get(f"/api/v1/namespaces/{name}") is not None
        except ApiError as error:
            if error.code == 403:
                return True
            raise

    return dict(zip(wanted, api.each(exists, wanted), strict=True))


def noted(notes: record.Record) -> list[tuple[str, str, str]]:
    """Return (apiVersion, kind, namespace) of what the ledger names: where things may lie that are no longer wanted."""
    found = set()
    for shape in {e.shape for e in notes.manifest.entries.values()}:
        version, kind, namespace = ([*shape.split(" "), "", ""])[:3]
        if kind:
            found.add((version, kind, namespace))
    return sorted(found)


def shape(item: Object) -> str:
    """Return what the ledger says of an object beside its name: where its kind is listed."""
    return f"{item.value['apiVersion']} {item.value['kind']} {item.value['metadata'].get('namespace', '')}".rstrip()


def listed(
    api: Api, root: HostRoot, tree: Tree, kinds: Kinds, notes: record.Record, spaces: Mapping[str, bool]
) -> tuple[dict[str, Value], dict[str, str]]:
    """List everything of the lab by its label: one request per kind and namespace."""
    cluster = cluster_of(root)
    places = {(str(o.value["apiVersion"]), str(o.value["kind"]), _space(o)) for o in tree.objects}
    places |= set(noted(notes)) | {(*ALWAYS_LISTED, cluster.namespace)}
    todo: list[tuple[Resource, str | None]] = sorted(
        {
            (kinds[version, kind], namespace or None)
            for version, kind, namespace in places
            if (version, kind) in kinds and spaces.get(namespace, True)
        },
        key=lambda pair: pair[0].path(pair[1]),
    )
    selector = f"{LAB}={owner(cluster)}"
    found = api.each(lambda pair: api.items(pair[0].path(pair[1]), selector), todo)
    live: dict[str, Value] = {}
    at: dict[str, str] = {}
    for (resource, _), items in zip(todo, found, strict=True):
        for item in items:
            whole = {"apiVersion": resource.version, "kind": resource.kind, **item}
            if not whole["metadata"].get("ownerReferences"):
                name, path = _place(root, resource, whole)
                live[name], at[name] = whole, path
    return live, at


def _place(root: HostRoot, resource: Resource, live: Value) -> tuple[str, str]:
    meta = live["metadata"]
    namespace = meta.get("namespace") if resource.namespaced else None
    return name_of(resource.kind, namespace, meta["name"], root), resource.path(namespace, meta["name"])


def _space(item: Object) -> str:
    return str(item.value["metadata"].get("namespace") or "")


def entries(root: HostRoot, tree: Tree, applied: Iterable[str]) -> dict[str, Entry]:
    """Return the ledger's entries of objects that were applied."""
    items = {object_name(o, root): o for o in tree.objects}
    return {n: Entry(kind=EntryKind.OBJECT, digest=items[n].digest, shape=shape(items[n])) for n in applied}


def without(manifest: Manifest, names: Iterable[str]) -> Manifest:
    """Return a ledger without some objects."""
    gone = set(names)
    return replace(manifest, entries={n: e for n, e in manifest.entries.items() if n not in gone})


def address(api: Api, item: Object) -> str | None:
    """Return the address of an object, asking the server for its kind now; None when it has none."""
    version, kind = str(item.value["apiVersion"]), str(item.value["kind"])
    resource = discover(api, [version]).get((version, kind))
    meta = item.value["metadata"]
    return None if resource is None else resource.path(meta.get("namespace"), str(meta["name"]))
