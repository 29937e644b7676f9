"""Instruction sets: what implies what, which processor has which, and the llama.cpp build options that use them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cache

from labctl.compat.rules import CpuFeature, CpuModel
from labctl.compat.tables import rows


@cache
def features() -> Mapping[str, CpuFeature]:
    """Return the known instruction sets by name, from the oldest to the newest."""
    return {f.name: f for f in rows(CpuFeature, "cpus.toml", "feature")}


def closure(names: Iterable[str]) -> frozenset[str]:
    """Return the names with everything that they imply: a CPU with ``avx2`` has ``avx`` and ``sse42``."""
    known = features()
    have: set[str] = set()
    todo = list(names)
    while todo:
        name = todo.pop()
        if name not in have:
            have.add(name)
            todo.extend(known[name].implies if name in known else ())
    return frozenset(have)


def missing(needed: Iterable[str], have: Iterable[str]) -> tuple[str, ...]:
    """Return the needed instruction sets that a CPU lacks, in the order of the table."""
    lacking = frozenset(needed) - closure(have)
    order = list(features())
    return tuple(sorted(lacking, key=lambda n: order.index(n) if n in order else len(order)))


def of_model(name: str) -> frozenset[str] | None:
    """Return the instruction sets of a processor by the name that the kernel prints, or None when it is unknown."""
    for model in rows(CpuModel, "cpus.toml", "cpu"):
        if re.search(model.like, name.lower()):
            return frozenset(model.features)
    return None


def ggml_options(have: Iterable[str]) -> tuple[str, ...]:
    """Return the CMake options that build llama.cpp for exactly these x86 instruction sets, on and off ones alike.

    ``GGML_NATIVE=OFF`` alone leaves AVX2, FMA, F16C and BMI2 on: an illegal instruction on a CPU without them.
    """
    on = closure(have)
    options = [f"-D{f.option}={'ON' if f.name in on else 'OFF'}" for f in features().values() if f.option]
    return ("-DGGML_NATIVE=OFF", *options)
