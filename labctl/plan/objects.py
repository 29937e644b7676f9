"""Comparing one Kubernetes object: what is wanted, what labctl applied last, what the API server would make of it."""

from __future__ import annotations

from typing import Final

from labctl.artefact import HostRoot, Object
from labctl.plan.model import Action, Change, Kind, Reason, State
from labctl.plan.observed import SecretDigests, SeenHost, SeenObject, UnitState

Verdict = tuple[Action, Reason]

DATA: Final = frozenset({"PersistentVolumeClaim", "PersistentVolume", "Namespace", "CustomResourceDefinition"})
"""Kinds that hold data, or whose deletion deletes what others own: kept unless data was asked for, too."""
PRUNED: Final = frozenset(
    {
        "ClusterRole",
        "ClusterRoleBinding",
        "ConfigMap",
        "CronJob",
        "DaemonSet",
        "Deployment",
        "HelmChart",
        "HelmChartConfig",
        "HorizontalPodAutoscaler",
        "Ingress",
        "Job",
        "LimitRange",
        "NetworkPolicy",
        "PodDisruptionBudget",
        "PriorityClass",
        "ResourceQuota",
        "Role",
        "RoleBinding",
        "RuntimeClass",
        "Secret",
        "Service",
        "ServiceAccount",
        "StatefulSet",
    }
)
"""Kinds that are deleted once the lab has no use for them. What is in neither list stays where it is."""


def object_name(item: Object, root: HostRoot) -> str:
    """Return what a plan calls an object: ``Deployment/qwen``, with its namespace where it is not the cluster's."""
    meta = item.value["metadata"]
    return name_of(str(item.value["kind"]), meta.get("namespace"), str(meta["name"]), root)


def name_of(kind: str, namespace: str | None, name: str, root: HostRoot) -> str:
    """Return how a plan calls the object of a kind with a name."""
    own = root.cluster.namespace if root.cluster is not None else None
    return f"{kind}/{name}" if namespace in {None, own} else f"{kind}/{namespace}/{name}"


def compare_object(item: Object, root: HostRoot, host: SeenHost, secrets: SecretDigests | None) -> Change:
    """Return the change of one wanted object."""
    name = object_name(item, root)
    seen = host.objects.get(name)
    action, reason = _verdict(item, name, seen, host, secrets)
    drifted = reason in {Reason.DRIFTED, Reason.FOREIGN}
    return Change(
        host=item.host,
        kind=Kind.OBJECT,
        name=name,
        action=action,
        reason=reason,
        because=seen.managers if seen is not None and drifted else (),
        before=_before(seen, shown=action.changes),
        after=State(digest=_goal(item, secrets), text=_after(item, seen) if action.changes else None),
        origin=item.origin,
    )


def compare_leftover_object(host: SeenHost, name: str, *, data: bool) -> Change:
    """Return the change of an object that labctl applied and the lab no longer wants."""
    seen = host.objects.get(name)
    kind = name.partition("/")[0]
    if seen is None or not seen.exists:
        verdict = (Action.DELETE, Reason.MISSING)
    elif kind in PRUNED or (data and kind in DATA):
        verdict = (Action.DELETE, Reason.NO_LONGER_WANTED)
    else:
        verdict = (Action.NOOP, Reason.KEPT)
    before = _before(seen, shown=False)
    return Change(host=host.host, kind=Kind.OBJECT, name=name, action=verdict[0], reason=verdict[1], before=before)


def _verdict(
    item: Object, name: str, seen: SeenObject | None, host: SeenHost, secrets: SecretDigests | None
) -> Verdict:
    if seen is not None and seen.refused:
        return Action.UNKNOWN, Reason.REFUSED
    if seen is None or not seen.exists:
        return Action.CREATE, Reason.MISSING if name in host.manifest.entries else Reason.NEW
    if seen.replace:
        return Action.REPLACE, Reason.DEFINITION_CHANGED
    value = _value(item, seen, secrets)
    if value is not None:
        return Action.UPDATE, value
    return _state(item, seen) if seen.same else (Action.UPDATE, _why(item, seen))


def _value(item: Object, seen: SeenObject, secrets: SecretDigests | None) -> Reason | None:
    """Return why a Secret's values are to be written, None when they are as wanted or nobody knows."""
    goal = secrets.get((item.host, item.path)) if secrets is not None and item.entries else None
    if goal is None or seen.secret == goal:
        return None
    if not seen.digest:
        return Reason.FOREIGN
    if seen.secret != seen.applied_secret:
        return Reason.DRIFTED
    return Reason.SECRET_ROTATED if seen.digest == item.digest else Reason.CONTENT_CHANGED


def _state(item: Object, seen: SeenObject) -> Verdict:
    """Return what becomes of one that is as wanted: a Job that failed is run again; controllers see to the others."""
    match seen.state:
        case UnitState.FAILED if item.value["kind"] == "Job":
            return Action.REPLACE, Reason.FAILED
        case UnitState.FAILED | UnitState.UNHEALTHY:
            return Action.NOOP, Reason.UNHEALTHY
        case UnitState.STARTING:
            return Action.NOOP, Reason.STARTING
        case _:
            return Action.NOOP, Reason.IN_PLACE


def _why(item: Object, seen: SeenObject) -> Reason:
    if not seen.digest:
        return Reason.FOREIGN
    if seen.digest != item.digest:
        return Reason.CONTENT_CHANGED
    return Reason.SECRET_ROTATED if seen.rotated and not seen.managers else Reason.DRIFTED


def _goal(item: Object, secrets: SecretDigests | None) -> str:
    """Return the digest of everything that is to be there; a Secret's values by their keyed digest."""
    keyed = secrets.get((item.host, item.path)) if secrets is not None and item.entries else None
    return item.digest if keyed is None else f"{item.digest}:{keyed}"


def _before(seen: SeenObject | None, *, shown: bool) -> State | None:
    if seen is None or not seen.exists:
        return None
    digest = seen.digest if seen.secret is None else f"{seen.digest}:{seen.secret}"
    return State(digest=digest, text=seen.text if shown else None, unit=seen.state, revision=seen.revision)


def _after(item: Object, seen: SeenObject | None) -> str:
    if seen is None or (seen.after is None and seen.text is None):
        return item.content.decode()
    return seen.after if seen.after is not None else seen.text or ""
