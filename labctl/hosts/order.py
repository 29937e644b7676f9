"""Roots that come after others: a cluster after the machines that it consists of. A destroy goes the other way."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import field
from typing import Final

from labctl.artefact import HostRoot, Tree
from labctl.diagnostics import Diagnostic, Severity
from labctl.plan.observed import Observed, SeenHost
from labctl.values import dataclass
from labctl.workload import Start

TICK: Final = 0.2


@dataclass(slots=True)
class Precedence:
    """Holds back who comes after others. Each host has a thread, which waits here and tells how it ended."""

    before: Mapping[str, frozenset[str]]
    _ended: dict[str, bool] = field(default_factory=dict)
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def wait(self, host: str, check: Callable[[], None]) -> str | None:
        """Return once everything before a host has ended: the first that did not go well, None when all did.

        Args:
            host: who waits.
            check: called while waiting; raises to give up.
        """
        waiting = self.before.get(host, frozenset())
        while True:
            with self._changed:
                bad = sorted(name for name in waiting if self._ended.get(name) is False)
                if bad:
                    return bad[0]
                if waiting <= self._ended.keys():
                    return None
                self._changed.wait(TICK)
            check()

    def end(self, host: str, *, well: bool) -> None:
        """Say how a host ended."""
        with self._changed:
            self._ended[host] = well
            self._changed.notify_all()


def with_those_to_come(tree: Tree, observed: Observed) -> Observed:
    """Return what was seen, with silent roots as empty where the roots before them are about to bring them.

    That is so when those could all be looked at, and something that is to run there does not yet. Where all of it runs,
    a silent root is a problem of its own.
    """
    hosts = dict(observed.hosts)
    for root in tree.roots.values():
        seen = hosts.get(root.host)
        if seen is not None and seen.silent and not seen.complete and _about_to_bring(root, tree, hosts):
            hosts[root.host] = SeenHost(host=root.host, to_come=True, why=(_to_come(root),))
    return Observed(hosts)


def _about_to_bring(root: HostRoot, tree: Tree, hosts: Mapping[str, SeenHost]) -> bool:
    before = [hosts[name] for name in root.after if name in hosts]
    wanted = [u for u in tree.units if u.host in root.after and u.start is Start.ALWAYS]
    down = [u for u in wanted if u.name not in hosts[u.host].units or not hosts[u.host].units[u.name].state.up]
    return bool(before) and all(seen.complete for seen in before) and bool(down)


def _to_come(root: HostRoot) -> Diagnostic:
    machines = ", ".join(f"`{name}`" for name in root.after)
    return Diagnostic(
        code="LAB205",
        severity=Severity.NOTE,
        summary=f"`{root.host}` does not answer yet: it comes with {machines}, and is planned as if it were empty",
        hint="apply waits for it, looks again, and refuses if there is anything that this plan does not show",
    )


def not_begun(host: str, because: str) -> Diagnostic:
    """Return that a host was left alone because one that has to be done before it was not."""
    return Diagnostic(
        code="LAB206",
        summary=f"`{host}` was not begun: `{because}` has to be done before it, and was not",
        hint=f"put that right and run the same command again; `--host {host}` works on it alone",
    )
