"""In which order things come: objects of a lower wave are applied, and ready, before those of a higher one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from labctl.workload import Workload

NAMESPACE: Final = 0
CHARTS: Final = 1
CONFIG: Final = 2
"""Accounts, policies, configuration, secrets; and services, so that names resolve before anybody asks."""
STORAGE: Final = 3
MODELS: Final = 4
"""Jobs that fetch model files."""
WORKLOADS: Final = 10
"""Workloads that wait for no other; each further wave waits for the one before."""


def waves(workloads: Sequence[Workload]) -> Mapping[str, int]:
    """Return the wave of each workload: after what it declares, and after those who serve it.

    Where callers go round in a circle, the first by name begins.
    """
    names = {w.name for w in workloads}
    before: dict[str, set[str]] = {w.name: {n for n in w.after if n in names} for w in workloads}
    hard = {name: frozenset(found) for name, found in before.items()}
    for workload in workloads:
        for caller in workload.serves_to or ():
            if caller in before and not _leads(hard, workload.name, caller):
                before[caller].add(workload.name)
    found: dict[str, int] = {}
    for name in sorted(before):
        _place(name, before, found, ())
    return found


def _leads(hard: Mapping[str, frozenset[str]], start: str, goal: str) -> bool:
    """Whether ``start`` has to wait for ``goal`` by declaration, directly or not."""
    seen, todo = set[str](), [start]
    while todo:
        name = todo.pop()
        if name == goal:
            return True
        if name not in seen:
            seen.add(name)
            todo.extend(hard.get(name, ()))
    return False


def _place(name: str, before: Mapping[str, set[str]], found: dict[str, int], path: tuple[str, ...]) -> int:
    if name in found:
        return found[name]
    earlier = [n for n in sorted(before[name]) if n not in path and n != name]
    wave = max((_place(n, before, found, (*path, name)) + 1 for n in earlier), default=WORKLOADS)
    return found.setdefault(name, wave)
