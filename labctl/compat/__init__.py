"""Which engine builds run on which cards, CPUs, drivers and hosts, decided by tables with a source in every row.

>>> from labctl.compat import Ask, gate, gpus
>>> gate(Ask(engine="llama.cpp", gpus=(gpus.find("P106-100"),))).build.flavour
'cuda12'
"""

from __future__ import annotations

from labctl.compat import builds, cpus, gpus
from labctl.compat.gate import alternatives, gate
from labctl.compat.values import Ask, Build, GpuFacts, OwnBuild, Problem, Verdict

__all__ = [
    "Ask",
    "Build",
    "GpuFacts",
    "OwnBuild",
    "Problem",
    "Verdict",
    "alternatives",
    "builds",
    "cpus",
    "gate",
    "gpus",
]
