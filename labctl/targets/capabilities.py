"""What a workload needs against what a target accepts: said before rendering, in words, never dropped silently."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final

from labctl import targets
from labctl.diagnostics import Diagnostic
from labctl.targets import Target
from labctl.workload import Capability, Container, Native, SecretText, Start, Workload

_KEYS: Final[Mapping[Capability, str]] = MappingProxyType(
    {
        Capability.MEMORY_LIMIT: "memory_limit",
        Capability.SWAP_LIMIT: "swap_limit",
        Capability.CPU_LIMIT: "cpus",
        Capability.LOCKED_MEMORY: "mlock",
        Capability.ON_DEMAND: "start: on-demand",
        Capability.REPLICAS: "replicas",
    }
)
"""Needs that one line of lab.yaml asks for, so that leaving it out is a remedy."""


def needed(workload: Workload, form: Container | Native) -> frozenset[Capability]:
    """Return everything that a target must be able to express for this form of the workload."""
    facts = _needs_of_form(form) | {
        Capability.GPU: workload.gpu is not None,
        Capability.MEMORY_LIMIT: workload.memory_limit is not None,
        Capability.SWAP_LIMIT: workload.swap_limit is not None,
        Capability.CPU_LIMIT: workload.cpus is not None,
        Capability.ON_DEMAND: workload.start is Start.ON_DEMAND,
        Capability.ONCE: workload.start is Start.ONCE,
        Capability.REPLICAS: workload.replicas > 1,
        Capability.CONTROL: bool(workload.controls),
        Capability.CONFIG_FILE: bool(workload.files),
        Capability.SECRET_ENV: any(
            isinstance(value, SecretText) and value.names for value in {**workload.env, **form.env}.values()
        ),
        Capability.LOCKED_MEMORY: form.locked_memory,
    }
    return frozenset(capability for capability, wanted in facts.items() if wanted)


def _needs_of_form(form: Container | Native) -> dict[Capability, bool]:
    if isinstance(form, Native):
        return {Capability.NATIVE: True, Capability.OWN_PYTHON: "{python}" in (form.program, *form.args)}
    return {
        Capability.CONTAINER: True,
        Capability.VOLUME: any(mount.volume for mount in form.mounts),
        Capability.SHARED_MEMORY: form.shm_size is not None,
    }


def choose_form(workload: Workload, target: Target) -> Container | Native | Diagnostic:
    """Return the first form that the target accepts, or LAB080: what is offered, what is accepted, and the remedy."""
    for form in workload.forms:
        if needed(workload, form) <= target.accepts:
            return form
    offered = [f"{_kind(form)} needs {_words(needed(workload, form))}" for form in workload.forms]
    missing = [needed(workload, form) - target.accepts for form in workload.forms]
    fewest = min(missing, key=len, default=frozenset[Capability]())
    return Diagnostic(
        code="LAB080",
        summary=f"`{workload.name}` cannot run on `{workload.host}`: target `{target.name}` has no {_words(fewest)}",
        detail="\n".join([*offered, f"`{target.name}` accepts {_words(target.accepts)}"]),
        path=workload.origin or None,
        hint=_remedy(workload, fewest),
    )


def _kind(form: Container | Native) -> str:
    return "as a container it" if isinstance(form, Container) else "as a program of the host it"


def _words(capabilities: Iterable[Capability]) -> str:
    """Spell capabilities in the order in which they are declared."""
    wanted = set(capabilities)
    return ", ".join(capability.value for capability in Capability if capability in wanted)


def _remedy(workload: Workload, missing: frozenset[Capability]) -> str:
    able = [name for name in targets.TARGETS if _accepts_some(workload, targets.load(name))]
    ways = [f"give `{workload.host}` `target: {name}`" for name in able]
    if missing and missing <= _KEYS.keys():
        keys = " and ".join(f"`{_KEYS[capability]}`" for capability in Capability if capability in missing)
        ways.append(f"leave out {keys}")
    return ", or ".join(ways) or "no target can run it as it is: choose another engine or fewer limits"


def _accepts_some(workload: Workload, target: Target) -> bool:
    return any(needed(workload, form) <= target.accepts for form in workload.forms)
