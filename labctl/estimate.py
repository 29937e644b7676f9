"""Memory of one model file without a lab, and what-if questions about a lab's deployments."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from labctl.diagnostics import Diagnostic, LabctlError
from labctl.engines import load as load_engine
from labctl.model.deployment import Deployment
from labctl.placed import Server
from labctl.resolve.lab import PlacedLab
from labctl.resolve.remedies import largest_context
from labctl.values import dataclass
from labctl.vram.footprint import Footprint

CEILING = 1 << 21
"""Longest context that is tried where the model does not say how much it was trained for, in tokens."""


def estimate_gguf(location: str, settings: Mapping[str, Any], projector: str | None = None) -> Footprint:
    """Return the memory of llama.cpp serving a GGUF file, whose header is read from a path or URL.

    LabctlError when the file cannot be read, is no GGUF file, or the settings are impossible for it.
    """
    from labctl.vram import llama_cpp  # noqa: PLC0415 - the memory model is heavy; only this question needs it here
    from labctl.vram.metadata.errors import MetadataError  # noqa: PLC0415
    from labctl.vram.metadata.sources import read_gguf  # noqa: PLC0415

    try:
        facts = read_gguf(location)
        extra = read_gguf(projector) if projector else None
        return llama_cpp.estimate(facts, llama_cpp.Settings(**settings, projector=extra))
    except MetadataError as error:
        problem = Diagnostic(code="LAB140", summary=f"`{location}` cannot be read as a GGUF file: {error}")
    except ValueError as error:
        problem = Diagnostic(code="LAB141", summary=f"the memory of `{location}` cannot be computed: {error}")
    raise LabctlError([problem])


@dataclass(frozen=True, slots=True, kw_only=True)
class WhatIf:
    """The largest context of one server, all else as it is."""

    server: str
    now: int
    largest: int | None
    trained: int | None
    """Tokens that the model was trained for, None when unknown."""


def max_context(placed: PlacedLab, name: str) -> tuple[WhatIf, ...]:
    """Return for each server of a deployment the largest context that its cards have room for.

    LabctlError for an unknown name and for an engine without a context or a known memory.
    """
    servers = servers_of(placed, name)
    return tuple(_max_context(placed, s) for s in servers)


def servers_of(placed: PlacedLab, name: str) -> tuple[Server, ...]:
    """Return the servers of a deployment, or the one server of that name; LabctlError when there is none."""
    found = tuple(s for s in placed.servers if name in (s.name, s.deployment))
    if found:
        return found
    known = ", ".join(f"`{d}`" for d in placed.lab.deployments)
    raise LabctlError([Diagnostic(code="LAB053", summary=f"there is no deployment `{name}`", hint=f"known: {known}")])


def _max_context(placed: PlacedLab, server: Server) -> WhatIf:
    spec = placed.lab.deployments[server.deployment]
    now = getattr(spec, "context", None)
    footprint = placed.ledger.footprints.get(server.name)
    if not isinstance(now, int) or footprint is None or footprint.declared or not server.gpus:
        summary = f"the memory of `{server.name}` does not follow from its context"
        raise LabctlError([Diagnostic(code="LAB142", summary=summary, path=server.origin)])
    trained = _trained(server)
    largest = largest_context(spec, trained or CEILING, lambda changed: _fits(placed, server, changed))
    return WhatIf(server=server.name, now=now, largest=largest, trained=trained)


def _fits(placed: PlacedLab, server: Server, changed: Deployment) -> bool:
    """Whether every card of a server would hold it with changed settings, beside all that is there."""
    engine = load_engine(changed.engine)
    facts = (changed, server.models, server.gpus, server.runtime.version)
    footprint = engine.footprint(*facts)
    if footprint is None or any(p.is_error for p in engine.limits(*facts)):
        return False
    sizes = {(server.host.name, g.index): d for g, d in zip(server.gpus, footprint.devices, strict=True)}
    accounts = [a for a in placed.ledger.gpus if (a.host, a.gpu.index) in sizes]
    return all(a.with_sizes({server.name: sizes[a.host, a.gpu.index]}).fits for a in accounts)


def _trained(server: Server) -> int | None:
    facts = server.models[0].gguf if server.models else None
    value = facts.metadata.get(f"{facts.architecture}.context_length") if facts is not None else None
    return value if isinstance(value, int) else None
