"""Why a workload is not ready: what its pods, their conditions, their events and the last lines of their logs say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from labctl.kube.api import Api, ApiError, Unreachable, Value, segment
from labctl.values import dataclass

LINES: Final = 10
"""Lines of a log that are shown."""
HOPELESS: Final = frozenset(
    {"InvalidImageName", "ErrImageNeverPull", "CreateContainerConfigError", "RunContainerError"}
)
"""Reasons of a waiting container that do not go away by waiting."""
RESTARTS: Final = 3
"""Restarts of a crashing container after which it is not waited for any more."""
PULLING: Final = 60
"""Seconds for which an image that cannot be pulled is tried."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Why:
    """Why something is not ready. ``hopeless`` when waiting does not help."""

    text: str = ""
    lines: tuple[str, ...] = ()
    hopeless: bool = False


def why(api: Api, live: Value, waited: float, *, logs: bool = False) -> Why:
    """Return why a workload is not ready, as far as can be found out; "" when nothing is known.

    Args:
        api: the server.
        live: the workload.
        waited: seconds that it has been waited for.
        logs: fetch the last lines of the log, too.
    """
    try:
        pods = [p for p in pods_of(api, live) if not _ready(p)]
        if not pods:
            return Why(text=_events(api, live))
        pod = pods[0]
        found = _pod(pod, waited)
        text = found.text or _events(api, pod)
        lines = tuple(last_lines(api, pod)) if logs else ()
    except (ApiError, Unreachable):
        return Why()
    return Why(text=f"pod {pod['metadata']['name']}: {text}" if text else "", lines=lines, hopeless=found.hopeless)


def pods_of(api: Api, live: Value) -> list[Value]:
    """Return a workload's pods, the newest first."""
    labels = ((live.get("spec") or {}).get("selector") or {}).get("matchLabels") or {}
    if not labels:
        return []
    selector = ",".join(f"{k}={v}" for k, v in sorted(labels.items()))
    found = api.items(f"/api/v1/namespaces/{segment(live['metadata']['namespace'])}/pods", selector)
    return sorted(found, key=lambda p: (p["metadata"]["creationTimestamp"], p["metadata"]["name"]), reverse=True)


def last_lines(api: Api, pod: Value) -> Iterator[str]:
    """Yield the last lines of a pod's log: of the container that is in trouble, of its last run when it has crashed."""
    status = _troubled(pod)
    name = status.get("name") or pod["spec"]["containers"][0]["name"]
    query = {"container": str(name), "tailLines": str(LINES)}
    if "waiting" in (status.get("state") or {}) and (status.get("lastState") or {}).get("terminated"):
        query["previous"] = "true"
    yield from api.lines(log_path(pod), query)


def log_path(pod: Value) -> str:
    """Return the address of a pod's log."""
    meta = pod["metadata"]
    return f"/api/v1/namespaces/{segment(meta['namespace'])}/pods/{segment(meta['name'])}/log"


def _pod(pod: Value, waited: float) -> Why:
    placed = _condition(pod, "PodScheduled")
    if placed.get("status") == "False":
        return Why(text=f"no node for it: {placed.get('message', '')}")
    status = _troubled(pod)
    state = status.get("state") or {}
    waiting, ended = state.get("waiting") or {}, state.get("terminated") or {}
    reason = str(waiting.get("reason") or "")
    if reason:
        return Why(text=_said(status, waiting), hopeless=_hopeless(reason, status, waited))
    if ended:
        return Why(text=f"container {status.get('name')} ended with exit status {ended.get('exitCode')}")
    if status:
        return Why(text=f"container {status.get('name')} runs but is not ready: its probe does not answer")
    return Why()


def _said(status: Value, waiting: Value) -> str:
    last = (status.get("lastState") or {}).get("terminated") or {}
    code = f" (exit status {last['exitCode']})" if "exitCode" in last else ""
    message = f": {waiting['message']}" if waiting.get("message") else ""
    return f"container {status.get('name')}: {waiting.get('reason')}{code}{message}"


def _hopeless(reason: str, status: Value, waited: float) -> bool:
    if reason == "CrashLoopBackOff":
        return bool(status.get("restartCount", 0) >= RESTARTS)
    return reason in HOPELESS or (reason in {"ImagePullBackOff", "ErrImagePull"} and waited >= PULLING)


def _troubled(pod: Value) -> Value:
    """Return the status of the first container that is not as it should be."""
    status = pod.get("status") or {}
    for one in status.get("initContainerStatuses") or ():
        if ((one.get("state") or {}).get("terminated") or {}).get("exitCode") != 0:
            return dict(one)
    for one in status.get("containerStatuses") or ():
        if not one.get("ready"):
            return dict(one)
    return {}


def _ready(pod: Value) -> bool:
    phase = (pod.get("status") or {}).get("phase")
    return phase == "Succeeded" or _condition(pod, "Ready").get("status") == "True"


def _condition(pod: Value, kind: str) -> Mapping[str, Any]:
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return next((c for c in conditions if c.get("type") == kind), {})


def _events(api: Api, live: Value) -> str:
    """Return the last warning about an object, or about the replica sets that it made."""
    meta = live["metadata"]
    path = f"/api/v1/namespaces/{segment(meta['namespace'])}/events"
    found = api.call("GET", path, {"fieldSelector": "type=Warning", "limit": "500"}).value.get("items") or ()
    about = [e for e in found if _concerns(e.get("involvedObject") or {}, live)]
    if not about:
        return ""
    last = max(about, key=_when)
    return f"{last.get('reason')}: {last.get('message')}"


def _concerns(about: Value, live: Value) -> bool:
    name, kind = live["metadata"]["name"], live.get("kind")
    made = about.get("kind") == "ReplicaSet" and str(about.get("name") or "").rpartition("-")[0] == name
    return about.get("uid") == live["metadata"].get("uid") or (kind == "Deployment" and made)


def _when(event: Value) -> str:
    return str(event.get("lastTimestamp") or event.get("eventTime") or event["metadata"].get("creationTimestamp") or "")
