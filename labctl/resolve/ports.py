"""Ports: as declared, else drawn from the name, so that no workload ever moves another's."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Final

from labctl.diagnostics import Diagnostic, DocPath, Related
from labctl.values import dataclass

FIRST: Final = 20_000
LAST: Final = 32_767
"""Below the ports that Linux hands out by itself (net.ipv4.ip_local_port_range starts at 32768)."""


def drawn_port(host: str, workload: str) -> int:
    """Return the port of a workload that declares none: it depends on its own name and its host's, on nothing else."""
    digest = hashlib.sha256(f"{host}/{workload}".encode()).digest()
    return FIRST + int.from_bytes(digest[:8]) % (LAST - FIRST + 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """A port that something is reachable at."""

    host: str
    port: int
    who: str
    path: DocPath
    declared: bool


def port_clashes(taken: Iterable[Taken]) -> Iterable[Diagnostic]:
    """Yield a diagnostic for each port that two workloads of one host claim; equal names are a problem of their own."""
    known: dict[tuple[str, int], Taken] = {}
    everything = sorted(taken, key=lambda t: (t.host, t.port, not t.declared, t.who))
    ports = {(t.host, t.port) for t in everything}
    for claim in everything:
        first = known.setdefault((claim.host, claim.port), claim)
        if first.who != claim.who:
            free = next(p for p in range(FIRST, LAST) if (claim.host, p) not in ports)
            yield Diagnostic(
                code="LAB060",
                summary=f"port {claim.port} of host `{claim.host}` is taken by `{first.who}` and by `{claim.who}`",
                path=(*claim.path, "port") if claim.declared else claim.path,
                hint=f"give `{claim.who}` another port, for example `port: {free}`",
                related=(Related("also taken here", (*first.path, "port") if first.declared else first.path),),
            )
