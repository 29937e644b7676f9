"""How a Kubernetes object is doing, from its own status. Pure; the rules are those of ``kubectl rollout status``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from labctl.plan.observed import UnitState
from labctl.values import dataclass

Value = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Doing:
    """How an object is doing. Objects that simply are (a Service, a ConfigMap) run."""

    state: UnitState
    detail: str = ""

    @property
    def settled(self) -> bool:
        """Whether nothing more is waited for."""
        return self.state in {UnitState.RUNNING, UnitState.STOPPED, UnitState.FINISHED}


def doing(live: Value) -> Doing:
    """Return how an object is doing."""
    rule = _RULES.get(str(live.get("kind")))
    return rule(live) if rule is not None else Doing(UnitState.RUNNING)


def _deployment(live: Value) -> Doing:
    spec, status = live.get("spec") or {}, live.get("status") or {}
    wanted = spec.get("replicas", 1)
    progressing = _condition(live, "Progressing")
    if progressing.get("reason") == "ProgressDeadlineExceeded" and _seen(live):
        return Doing(UnitState.FAILED, str(progressing.get("message") or "it did not become ready in time"))
    return _replicas(live, wanted, status.get("updatedReplicas", 0), status.get("availableReplicas", 0))


def _stateful_set(live: Value) -> Doing:
    spec, status = live.get("spec") or {}, live.get("status") or {}
    wanted = spec.get("replicas", 1)
    updated = status.get("updatedReplicas", 0)
    if status.get("updateRevision") == status.get("currentRevision"):
        updated = max(updated, status.get("currentReplicas", 0))
    return _replicas(live, wanted, updated, status.get("readyReplicas", 0))


def _daemon_set(live: Value) -> Doing:
    status = live.get("status") or {}
    wanted = status.get("desiredNumberScheduled", 0)
    if _seen(live) and wanted == 0:
        return Doing(UnitState.RUNNING, "no node for it")
    return _replicas(live, wanted, status.get("updatedNumberScheduled", 0), status.get("numberAvailable", 0))


def _replicas(live: Value, wanted: int, updated: int, available: int) -> Doing:
    there = (live.get("status") or {}).get("replicas", 0)
    if not _seen(live):
        return Doing(UnitState.STARTING, "its controller has not seen it yet")
    if wanted == 0:
        gone = there == 0
        return Doing(UnitState.STOPPED) if gone else Doing(UnitState.STARTING, f"{there} still stopping")
    if updated < wanted:
        return Doing(UnitState.STARTING, f"{updated} of {wanted} have the new definition")
    if there > wanted:
        return Doing(UnitState.STARTING, f"{there - wanted} old ones still stopping")
    if available < wanted:
        return Doing(UnitState.STARTING, f"{available} of {wanted} ready")
    return Doing(UnitState.RUNNING, f"{available} of {wanted} ready")


def _job(live: Value) -> Doing:
    for kind, state in (("Complete", UnitState.FINISHED), ("Failed", UnitState.FAILED)):
        found = _condition(live, kind)
        if found.get("status") == "True":
            return Doing(state, ": ".join(str(found[k]) for k in ("reason", "message") if found.get(k)))
    if (live.get("spec") or {}).get("suspend"):
        return Doing(UnitState.STOPPED, "suspended")
    status = live.get("status") or {}
    return Doing(UnitState.STARTING, f"{status.get('active', 0)} running, {status.get('failed', 0)} failed")


def _claim(live: Value) -> Doing:
    phase = str((live.get("status") or {}).get("phase") or "Pending")
    if phase == "Lost":
        return Doing(UnitState.FAILED, "its volume is lost")
    return Doing(UnitState.RUNNING) if phase == "Bound" else Doing(UnitState.STARTING, "no volume yet")


def _namespace(live: Value) -> Doing:
    phase = (live.get("status") or {}).get("phase")
    if phase == "Terminating":
        return Doing(UnitState.FAILED, "it is being deleted")
    return Doing(UnitState.RUNNING) if phase == "Active" else Doing(UnitState.STARTING)


def _definition(live: Value) -> Doing:
    refused = _condition(live, "NamesAccepted")
    if refused.get("status") == "False":
        return Doing(UnitState.FAILED, str(refused.get("message") or "its names are taken"))
    established = _condition(live, "Established").get("status") == "True"
    return Doing(UnitState.RUNNING) if established else Doing(UnitState.STARTING, "not established yet")


def _chart(live: Value) -> Doing:
    failed = _condition(live, "Failed")
    if failed.get("status") == "True":
        return Doing(UnitState.FAILED, str(failed.get("message") or "its installation failed"))
    if not (live.get("status") or {}).get("jobName"):
        return Doing(UnitState.STARTING, "the Helm controller has not seen it yet")
    return Doing(UnitState.RUNNING)


def _seen(live: Value) -> bool:
    """Whether the controller has looked at this generation of the object."""
    observed = (live.get("status") or {}).get("observedGeneration", 0)
    return bool(observed >= (live["metadata"].get("generation") or 0))


def _condition(live: Value, kind: str) -> Value:
    conditions = (live.get("status") or {}).get("conditions") or ()
    return next((c for c in conditions if c.get("type") == kind), {})


_RULES: Final[Mapping[str, Callable[[Value], Doing]]] = {
    "Deployment": _deployment,
    "StatefulSet": _stateful_set,
    "DaemonSet": _daemon_set,
    "Job": _job,
    "PersistentVolumeClaim": _claim,
    "Namespace": _namespace,
    "CustomResourceDefinition": _definition,
    "HelmChart": _chart,
}
WORKLOADS: Final = frozenset({"Deployment", "StatefulSet", "DaemonSet", "Job"})
"""Kinds that run pods of their own, and are shown as units."""
WAITED: Final = frozenset(_RULES)
"""Kinds whose readiness is waited for."""
