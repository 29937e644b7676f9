"""Deleting objects: those that run things first, what they need afterwards, and only what was looked at."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from itertools import groupby
from typing import Final

from labctl.diagnostics import Diagnostic
from labctl.hosts.base import HostError
from labctl.kube import problems
from labctl.kube.api import Api, ApiError, Value
from labctl.kube.ready import WORKLOADS
from labctl.plan.model import Change
from labctl.values import dataclass

ORDER: Final = (
    "HelmChart",
    "Ingress",
    "CronJob",
    "Job",
    "Deployment",
    "DaemonSet",
    "StatefulSet",
    "*",
    "PersistentVolumeClaim",
    "PersistentVolume",
    "CustomResourceDefinition",
    "Namespace",
)
"""Kinds in the order in which they go; ``*`` is every other."""
LIMIT: Final = 90
"""Seconds until something that is deleted has to be gone: pods have 30 s to end."""
TICK: Final = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Remover:
    """Deletes objects of one cluster."""

    api: Api
    check: Callable[[], None]

    def all(
        self,
        changes: Iterable[Change],
        live: Mapping[str, Value],
        at: Mapping[str, str],
        started: Callable[[Change], None],
    ) -> dict[str, Diagnostic]:
        """Delete what the changes name; return what could not be, by name. What is gone already is fine."""
        failed: dict[str, Diagnostic] = {}

        def one(change: Change) -> None:
            self.check()
            started(change)
            if change.name not in at or change.name not in live:
                return
            try:
                self.delete(at[change.name], live[change.name])
            except ApiError as error:
                failed[change.name] = problems.of_object(error, change.name)

        for _, group in groupby(sorted(changes, key=_rank), key=_rank):
            some = list(group)
            self.api.each(one, some)
            for change in some:
                waits = change.name in at and change.name in live and _kind(change) in {*WORKLOADS, "Namespace"}
                if waits and change.name not in failed and not self.gone(at[change.name], live[change.name]):
                    failed[change.name] = _stays(change.name)
        return failed

    def away(self, path: str, live: Value | None) -> None:
        """Delete one object and wait until it is gone. HostError when it stays."""
        if live is not None:
            self.delete(path, live)
            if not self.gone(path, live):
                raise HostError(_stays(str(live["metadata"]["name"])))

    def delete(self, path: str, live: Value) -> None:
        """Delete one object, if it still is the one that was seen."""
        policy = "Foreground" if live.get("kind") in WORKLOADS else "Background"
        body = {"propagationPolicy": policy, "preconditions": {"uid": live["metadata"]["uid"]}}
        try:
            self.api.call("DELETE", path, body=body)
        except ApiError as error:
            if error.code != 404:
                raise

    def gone(self, path: str, live: Value) -> bool:
        """Wait until an object is gone; tell whether it is."""
        deadline = time.monotonic() + LIMIT
        while True:
            there = self.api.get(path)
            if there is None or there["metadata"]["uid"] != live["metadata"]["uid"]:
                return True
            if time.monotonic() >= deadline:
                return False
            self.check()
            time.sleep(TICK)


def _kind(change: Change) -> str:
    return change.name.partition("/")[0]


def _rank(change: Change) -> int:
    kind = _kind(change)
    return ORDER.index(kind if kind in ORDER else "*")


def _stays(name: str) -> Diagnostic:
    return Diagnostic(
        code="LAB178",
        summary=f"`{name}` was deleted and is still there after {LIMIT} s",
        hint="something holds it: `kubectl get -o yaml` shows its finalizers, `kubectl get pods` what still ends",
    )
