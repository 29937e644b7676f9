"""What lab.yaml says about a host beside what was seen there. Differences are warnings: the host is right."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Final

from labctl.diagnostics import Diagnostic, DocPath, Severity
from labctl.placed import PlacedGpu, PlacedHost
from labctl.plan.observed import Facts
from labctl.quantity import format_size

LEAST_RAM: Final = 0.9
"""Part of the declared RAM that the kernel reports at least: firmware and the kernel itself keep some."""
LEAST_VRAM: Final = 0.99
FLAGS: Final[Mapping[str, tuple[str, ...]]] = {
    "sse42": ("sse4_2",),
    "avx512": ("avx512f",),
    "neon": ("asimd", "neon"),
    "dotprod": ("asimddp",),
}
"""How /proc/cpuinfo calls features that lab.yaml calls otherwise."""
MACHINES: Final[Mapping[str, str]] = {"amd64": "x86_64", "arm64": "aarch64"}


def differences(host: PlacedHost, facts: Facts, driver: str | None = None) -> Iterator[Diagnostic]:
    """Yield a warning (LAB195) for each thing that lab.yaml says of a host and that is not so.

    Args:
        host: as declared.
        facts: as seen.
        driver: the declared version of the GPU driver.
    """
    at: DocPath = host.origin
    arch = MACHINES.get(facts.arch, facts.arch)
    if arch and arch != host.arch:
        yield _warning(host, (*at, "arch"), f"is {facts.arch}, not {host.arch}")
    if host.memory is not None and facts.memory and facts.memory < host.memory * LEAST_RAM:
        has, said = format_size(facts.memory), format_size(host.memory)
        yield _warning(host, (*at, "memory"), f"has {has} of RAM, not {said}")
    missing = sorted(f for f in host.cpu_features or () if facts.features and not _has(facts, f))
    if missing:
        yield _warning(host, (*at, "cpu", "features"), f"has a CPU without {', '.join(missing)}")
    yield from _cards(host, facts, at)
    yield from _driver(host, facts, driver, at)
    yield from _groups(host, facts, at)


def _has(facts: Facts, feature: str) -> bool:
    return any(flag in facts.features for flag in FLAGS.get(feature, (feature,)))


def _cards(host: PlacedHost, facts: Facts, at: DocPath) -> Iterator[Diagnostic]:
    declared, seen = Counter(g.vendor for g in host.gpus), Counter(g.vendor for g in facts.gpus)
    for vendor in sorted({"nvidia", "amd"} & (declared.keys() | seen.keys())):
        if declared[vendor] > seen[vendor]:
            yield _fewer(host, facts, vendor, declared[vendor], at)
    known = {g.uuid: g for g in facts.gpus if g.uuid}
    for gpu in host.gpus:
        if gpu.uuid is None or gpu.vendor != "nvidia" or not known:
            continue
        found = known.get(gpu.uuid)
        if found is None:
            yield _other_card(host, gpu, sorted(known))
        elif found.memory is not None and found.memory < gpu.memory * LEAST_VRAM:
            has, said = format_size(found.memory), format_size(gpu.memory)
            yield _warning(host, gpu.origin, f"has a {found.name} with {has}, not {said}", "set `memory` of the card")


def _fewer(host: PlacedHost, facts: Facts, vendor: str, declared: int, at: DocPath) -> Diagnostic:
    names = ", ".join(g.name or vendor for g in facts.gpus if g.vendor == vendor) or "none"
    on_bus = facts.bus.get(vendor, 0)
    hint = "see the kernel's log: a card that is on the bus has no working driver" if on_bus >= declared else ""
    what = f"shows fewer {vendor.upper()} cards than lab.yaml says: {names} of {declared} (on the PCI bus: {on_bus})"
    return _warning(host, (*at, "gpus"), what, hint)


def _other_card(host: PlacedHost, gpu: PlacedGpu, known: list[str]) -> Diagnostic:
    what = f"has no card {gpu.uuid}"
    return _warning(host, (*gpu.origin, "uuid"), what, f"it has: {', '.join(known)}")


def _driver(host: PlacedHost, facts: Facts, driver: str | None, at: DocPath) -> Iterator[Diagnostic]:
    found = sorted({g.driver for g in facts.gpus if g.driver})
    if driver is not None and found and not any(f == driver or f.startswith(f"{driver}.") for f in found):
        yield _warning(host, (*at, "driver"), f"has driver {', '.join(found)}, not {driver}")


def _groups(host: PlacedHost, facts: Facts, at: DocPath) -> Iterator[Diagnostic]:
    if len(host.group_ids) != 2 or not any(g.vendor == "amd" for g in host.gpus):
        return
    for name, declared in zip(("video", "render"), host.group_ids, strict=True):
        found = facts.groups.get(name)
        if found is not None and found != declared:
            yield _warning(host, (*at, "group_ids"), f"has group {name} with id {found}, not {declared}")


def _warning(host: PlacedHost, path: DocPath, what: str, hint: str = "") -> Diagnostic:
    return Diagnostic(
        code="LAB195",
        severity=Severity.WARNING,
        summary=f"`{host.name}` {what}",
        path=path,
        hint=hint or "correct lab.yaml: what fits and what runs there was decided by it",
    )
