"""What is there of a lab in a cluster, and what the server's own dry-run would make of it.

Everything of the lab is listed by its label, a request per kind. Of an object that labctl last applied exactly as it
would apply it now, nothing need be asked; every other is applied with ``dryRun=All``. What cannot be tried on the
server, because its namespace or its kind comes with this very apply, is to be created, and is said to be untried.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field, replace
from typing import Any

from labctl.artefact import Cluster, HostRoot, Object, Tree, Unit
from labctl.diagnostics import Diagnostic
from labctl.kube import fields, problems, record
from labctl.kube.api import APPLY, Api, ApiError, Value
from labctl.kube.kinds import Kinds, discover
from labctl.kube.listing import cluster_of, listed, namespaces, noted
from labctl.kube.prepare import APPLIED, SECRETS, Values, decoded, digest, sent, template_note
from labctl.kube.ready import WORKLOADS, doing
from labctl.kube.text import shown
from labctl.plan.objects import object_name
from labctl.plan.observed import Entry, EntryKind, SeenHost, SeenObject, SeenUnit, UnitState
from labctl.secrets import Redactor, Secrets
from labctl.values import dataclass
from labctl.workload import Start


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """What was seen of a cluster.

    Attributes:
        live: the objects with the lab's label, and those of the tree that are there without it, by their plan name.
        at: the address of each of them and of every wanted object whose kind the server has.
        seen: what a plan needs to know.
        values: the secret values with the cluster's key.
        fresh: the lab's namespace is not there yet.
        untried: objects that could not be tried on the server.
    """

    root: HostRoot
    tree: Tree
    kinds: Kinds
    record: record.Record
    values: Values
    live: Mapping[str, Value] = field(default_factory=dict)
    at: Mapping[str, str] = field(default_factory=dict)
    seen: Mapping[str, SeenObject] = field(default_factory=dict)
    why: tuple[Diagnostic, ...] = ()
    fresh: bool = False
    untried: tuple[str, ...] = ()

    @property
    def cluster(self) -> Cluster:
        """Where it is."""
        return cluster_of(self.root)

    @property
    def refused(self) -> bool:
        """Whether something cannot be applied as it is."""
        return any(d.is_error for d in self.why)

    def host(self) -> SeenHost:
        """Return it as a plan takes it."""
        manifest = self.record.manifest
        return SeenHost(
            host=self.root.host,
            why=self.why,
            manifest=replace(manifest, entries={**self._entries(), **manifest.entries}),
            units=units(self.tree, self.live),
            objects=self.seen,
        )

    def _entries(self) -> dict[str, Entry]:
        """Return what carries labctl's label as owned, whatever the ledger says."""
        return {n: Entry(kind=EntryKind.OBJECT, digest=s.digest) for n, s in self.seen.items() if s.exists and s.digest}


@dataclass(frozen=True, slots=True)
class Known:
    """What a plan has found out already, for a look that is to confirm it.

    Attributes:
        new: objects that are to be created, and were tried.
        changed: objects that are to be changed → the version that was there when they were tried.
    """

    new: frozenset[str] = frozenset()
    changed: Mapping[str, str] = field(default_factory=dict)


def look(
    api: Api,
    root: HostRoot,
    tree: Tree,
    secrets: Secrets | None,
    *,
    known: Known | None = None,
    dry: bool = True,
) -> Sight:
    """Look at a cluster.

    Args:
        api: the server.
        root: the cluster's root; ``tree`` its part of the tree.
        tree: what is wanted.
        secrets: values, None when none are at hand.
        known: what need not be tried again.
        dry: try what is wanted on the server; without, only see what is there.

    Raises:
        ApiError, Unreachable: the server does not let one look.
        HostError: LAB102, labctl's own notes are damaged.
    """
    cluster = cluster_of(root)
    notes = record.read(api, cluster)
    wanted = {object_name(o, root): o for o in tree.objects}
    versions = {str(o.value["apiVersion"]) for o in tree.objects} | {v for v, _, _ in noted(notes)} | {"v1"}
    kinds = discover(api, versions)
    spaces = namespaces(api, cluster, tree)
    live, at = listed(api, root, tree, kinds, notes, spaces)
    for name, item in wanted.items():
        resource = kinds.get((str(item.value["apiVersion"]), str(item.value["kind"])))
        if resource is not None:
            meta = item.value["metadata"]
            at[name] = resource.path(meta.get("namespace"), str(meta["name"]))
    values = Values.of(tree.objects, secrets, notes.key)
    sight = Sight(
        root=root,
        tree=tree,
        kinds=kinds,
        record=notes,
        values=values,
        live=live,
        at=at,
        fresh=not spaces.get(cluster.namespace, True),
    )
    looker = _Looker(api, sight, spaces, known or Known(), secrets.redactor() if secrets is not None else Redactor())
    return looker.all(wanted if dry else {})


@dataclass(frozen=True, slots=True)
class _Looker:
    api: Api
    sight: Sight
    spaces: Mapping[str, bool]
    known: Known
    redact: Redactor

    def all(self, wanted: Mapping[str, Object]) -> Sight:
        """Try every wanted object; describe those that are there and no longer wanted."""
        results = self.api.each(lambda pair: self._one(*pair), wanted.items())
        live = dict(self.sight.live)
        seen: dict[str, SeenObject] = {}
        why: list[Diagnostic] = []
        untried: list[str] = []
        for name, (found, there, problem, tried) in zip(wanted, results, strict=True):
            seen[name] = found
            why += [problem] if problem is not None else []
            untried += [] if tried else [name]
            if there is not None:
                live[name] = there
        for name in live.keys() - wanted.keys():
            seen[name] = self._describe(live[name], None)
        if untried:
            why.append(problems.unchecked(self.sight.root.host, untried, self._reason()))
        return replace(self.sight, live=live, seen=seen, why=tuple(dict.fromkeys(why)), untried=tuple(untried))

    def _reason(self) -> str:
        missing = [f"`{name}`" for name, exists in sorted(self.spaces.items()) if not exists]
        if missing:
            return f"namespace {', '.join(missing)} does not exist yet"
        return "their kinds come with this apply"

    def _one(self, name: str, item: Object) -> tuple[SeenObject, Value | None, Diagnostic | None, bool]:
        """Return what is known of one object: as seen, as it is, a problem, and whether the server was asked."""
        live = self.sight.live.get(name)
        if name not in self.sight.at:
            return self._no_kind(name, item)
        namespace = item.value["metadata"].get("namespace")
        if namespace is not None and not self.spaces.get(namespace, True):
            return SeenObject(exists=False), None, None, False
        if live is None and name in self.known.new:
            return SeenObject(exists=False), None, None, True
        body = self.body(item, live)
        if live is not None and self._proved(item, live, body):
            return replace(self._describe(live, item), same=True), live, None, True
        if live is not None and self.known.changed.get(name) == live["metadata"]["resourceVersion"]:
            rotated = template_note(live) != template_note(body)
            return replace(self._describe(live, item), rotated=rotated), live, None, True
        return self._try(name, item, live, body)

    def body(self, item: Object, live: Value | None) -> Any:
        """Return what is tried: as it would be applied, but without any secret value."""
        values = self.sight.values
        if item.entries:
            values = replace(values, secrets=None)
        return sent(item, self.sight.cluster, values, live, keep=keeps(item, self.sight.tree))

    def _proved(self, item: Object, live: Value, body: Any) -> bool:
        """Whether what labctl applied last is exactly what it would apply now, so that nothing would change."""
        mine = fields.applied(live)
        return mine is not None and fields.same(body, mine) and not _redo(item, live)

    def _try(
        self, name: str, item: Object, live: Value | None, body: Any
    ) -> tuple[SeenObject, Value | None, Diagnostic | None, bool]:
        path = self.sight.at[name]
        try:
            answer = self.dry_run(path, body)
        except ApiError as error:
            return self._tried_in_vain(name, item, live, body, error)
        if answer.code == 201:
            return SeenObject(exists=False, after=self._text(answer.value)), None, None, True
        live = live if live is not None else self.api.get(path)
        if live is None:  # gone in this very moment
            return SeenObject(exists=False), None, None, True
        return self._compared(item, live, answer.value), live, None, True

    def _compared(self, item: Object, live: Value, after: Value) -> SeenObject:
        found = self._describe(live, item)
        equal = _comparable(live) == _comparable(after)
        rotated = template_note(live) != template_note(after)
        changed = None if equal else self._text(after)
        return replace(found, same=equal, after=changed, rotated=rotated)

    def _tried_in_vain(
        self, name: str, item: Object, live: Value | None, body: Any, error: ApiError
    ) -> tuple[SeenObject, Value | None, Diagnostic | None, bool]:
        there = live if live is not None else self._there(name)
        if error.code == 409 and error.causes:
            problem = problems.conflict(error, name, item.origin or None)
            managers = tuple(sorted({m for m, _ in problems.conflicts(error)}))
            try:
                after = self.dry_run(self.sight.at[name], body, force=True).value
            except ApiError as other:
                return self._refused(item, there, problems.of_object(other, name, item))
            if there is None:
                return SeenObject(exists=False), None, problem, True
            return replace(self._compared(item, there, after), same=False, managers=managers), there, problem, True
        if problems.immutable(error) and item.value["kind"] == "Job" and there is not None:
            return replace(self._describe(there, item), replace=True), there, None, True
        return self._refused(item, there, problems.of_object(error, name, item))

    def _refused(
        self, item: Object, there: Value | None, problem: Diagnostic
    ) -> tuple[SeenObject, Value | None, Diagnostic | None, bool]:
        clean = replace(problem, summary=self.redact(problem.summary), detail=self.redact(problem.detail))
        found = self._describe(there, item) if there is not None else SeenObject(exists=False)
        return replace(found, refused=True), there, clean, True

    def dry_run(self, path: str, body: Any, *, force: bool = False) -> Any:
        """Apply without applying."""
        query = {"fieldManager": fields.MANAGER, "dryRun": "All"} | ({"force": "true"} if force else {})
        return self.api.call("PATCH", path, query, body, APPLY)

    def _there(self, name: str) -> Value | None:
        try:
            return self.api.get(self.sight.at[name])
        except ApiError:
            return None

    def _no_kind(self, name: str, item: Object) -> tuple[SeenObject, Value | None, Diagnostic | None, bool]:
        if _brings(self.sight.tree, item):
            return SeenObject(exists=False), None, None, False
        return SeenObject(exists=False, refused=True), None, problems.no_kind(item, name), True

    def _describe(self, live: Value, item: Object | None) -> SeenObject:
        """Return an object as it is."""
        notes = live["metadata"].get("annotations") or {}
        state = doing(live)
        secret = None
        if item is not None and item.entries and self.sight.record.key is not None:
            secret = digest(self.sight.record.key, decoded(live, item.entries))
        shows = live.get("kind") in WORKLOADS
        mine = fields.owned(live) is not None
        at = fields.applied_at(live)
        return SeenObject(
            digest=str(notes.get(APPLIED) or "") if mine else "",
            text=self._text(live),
            managers=fields.others(live, since=at) if mine else fields.others(live),
            secret=secret,
            applied_secret=notes.get(SECRETS),
            state=state.state if shows else None,
            detail=state.detail if shows else "",
            revision=live["metadata"].get("resourceVersion"),
        )

    def _text(self, value: Value) -> str:
        return self.redact(shown(value))


def keeps(item: Object, tree: Tree) -> bool:
    """Whether somebody else starts and stops it: its unit runs on demand, and no group decides whose turn it is."""
    ident = f"{item.value['kind']}/{item.value['metadata']['name']}"
    return any(u.id == ident and u.start is Start.ON_DEMAND and not u.turns for u in tree.units)


def units(tree: Tree, live: Mapping[str, Value]) -> dict[str, SeenUnit]:
    """Return how the tree's units are doing, by their names."""
    found = {}
    for unit in tree.units:
        there = live.get(unit.id)
        if there is not None:
            found[unit.name] = _unit(unit, there)
    return found


def _unit(unit: Unit, there: Value) -> SeenUnit:
    state = doing(there)
    notes = there["metadata"].get("annotations") or {}
    containers: Any = (((there.get("spec") or {}).get("template") or {}).get("spec") or {}).get("containers") or ({},)
    image = containers[0].get("image")
    word = UnitState.UNHEALTHY if state.state is UnitState.FAILED and unit.start is not Start.ONCE else state.state
    return SeenUnit(state=word, fingerprint=notes.get(APPLIED), image=image, detail=state.detail)


def _comparable(value: Value) -> Any:
    """Return an object without what changes by itself."""
    meta = {
        k: v
        for k, v in value["metadata"].items()
        if k not in {"managedFields", "resourceVersion", "generation", "uid", "creationTimestamp"}
    }
    return {k: v for k, v in value.items() if k not in {"status", "metadata"}} | {"metadata": meta}


def _redo(item: Object, live: Value) -> bool:
    """Whether a Job's pods were made from something else than what is wanted."""
    note = (live["metadata"].get("annotations") or {}).get(APPLIED)
    return item.value["kind"] == "Job" and note != item.digest


def _brings(tree: Tree, item: Object) -> bool:
    """Whether the tree itself brings an object's kind: as a definition, or perhaps with a chart of an earlier wave."""
    group = str(item.value["apiVersion"]).rpartition("/")[0]
    for other in tree.objects:
        spec = other.value.get("spec") or {}
        if other.value["kind"] == "CustomResourceDefinition" and spec.get("group") == group:
            return True
        if other.value["kind"] == "HelmChart" and other.wave < item.wave:
            return True
    return False
