"""``labctl doctor``: every host of a lab is examined, all at the same time. No typer, no rich."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Final

from labctl import operate
from labctl.artefact import HostRoot, Tree
from labctl.hosts import doctor, fleet
from labctl.hosts.doctor import Examined, Subject
from labctl.plan.facts import differences
from labctl.plan.observed import SeenHost
from labctl.usecases import Loaded
from labctl.workload import Accelerator, GpuAccess, Native

AT_ONCE: Final = 8


def examine(loaded: Loaded, hosts: Iterable[str] = ()) -> tuple[Examined, ...]:
    """Return what was found on each host, by name. LabctlError for a host that the lab does not have."""
    stands, _ = operate.as_it_stands(loaded)
    tree = operate.tree_of(stands, hosts)
    observed = fleet.observe(tree)
    subjects = [_subject(stands, root, tree, observed.hosts[root.host]) for root in tree.roots.values()]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return tuple(_located(loaded, found) for found in pool.map(doctor.examine, subjects))


def _subject(loaded: Loaded, root: HostRoot, tree: Tree, seen: SeenHost) -> Subject:
    placed, part = loaded.need_placed(), tree.of_host(root.host)
    host = placed.hosts.get(root.host)
    if host is None or seen.facts is None:
        return Subject(root=root, part=part, seen=seen)
    found = tuple(differences(host, seen.facts, placed.lab.hosts[root.host].driver))
    access, imports = _access(loaded, root.host), dict(_imports(loaded, root.host))
    return Subject(root=root, part=part, seen=seen, differences=found, access=access, imports=imports)


def _access(loaded: Loaded, host: str) -> GpuAccess | None:
    """Return how a host's containers get NVIDIA cards; None when none of them does."""
    workloads = [w for w in loaded.need_rendered().workloads if w.host == host and w.gpu is not None]
    cuda = [w.gpu for w in workloads if w.gpu is not None and w.gpu.accelerator is Accelerator.CUDA]
    compose = loaded.need_placed().hosts[host].target == "compose"
    return cuda[0].access if cuda and compose else None


def _imports(loaded: Loaded, host: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield what labctl's own programs need of a host's Pythons, where they run by themselves."""
    if loaded.need_placed().hosts[host].target == "systemd":
        for workload in (w for w in loaded.need_rendered().workloads if w.host == host):
            for form in workload.forms:
                if isinstance(form, Native) and form.imports:
                    yield form.program, form.imports


def _located(loaded: Loaded, found: Examined) -> Examined:
    checks = tuple(
        replace(c, problem=operate.locate(loaded, [c.problem])[0]) if c.problem is not None else c for c in found.checks
    )
    return replace(found, checks=checks)
