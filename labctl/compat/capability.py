"""Compute capabilities and versions: how they compare, and which machine code runs where."""

from __future__ import annotations

import re
from collections.abc import Iterable

from labctl.compat.values import Build, GpuFacts

_EMBEDDED = frozenset({(5, 3), (6, 2), (7, 2), (8, 7), (10, 1), (11, 0)})
"""Capabilities of SoCs, which do not run the machine code of the cards of their family.

Source: PyTorch, torch/cuda/__init__.py ("8.6 which supports hardware CC >=8.6,<9.0 except {8.7}").
"""


def parse(capability: str) -> tuple[int, int]:
    """Return ``12.0a`` as ``(12, 0)``; ValueError when it is no capability."""
    found = re.fullmatch(r"(\d+)\.(\d+)[af]?", capability)
    if not found:
        message = f"`{capability}` is no compute capability"
        raise ValueError(message)
    return int(found[1]), int(found[2])


def version(text: str) -> tuple[int, ...]:
    """Return the numbers of a version such as ``b11549``, ``12.8.1`` or ``580.65.06``, for comparison."""
    return tuple(int(n) for n in re.findall(r"\d+", text))


def runs(capability: str, sass: Iterable[str], ptx: Iterable[str]) -> bool:
    """Tell whether code for these architectures runs on a card.

    Machine code runs on later minor versions of the same major one, unless it is architecture-specific (``a``) or the
    card is a SoC. PTX is compiled by the driver for any later card.
    """
    card = parse(capability)
    return any(_native(card, s) for s in sass) or any(parse(p) <= card and not p.endswith("a") for p in ptx)


def compiled_at_start(capability: str, build: Build) -> bool:
    """Tell whether a card runs a build only by the driver compiling its PTX when it first starts."""
    return not runs(capability, build.sass, ()) and runs(capability, (), build.ptx)


def drives(build: Build, gpu: GpuFacts) -> bool:
    """Tell whether a build has code for a card."""
    platform = "tegra" if gpu.tegra else "server"
    if platform not in build.platforms:
        return False
    if build.accelerator == "vulkan":
        return gpu.vendor in build.vendors and _not_older(gpu, build.min_capability)
    if build.accelerator == "rocm":
        return gpu.gfx is not None and (build.for_host or gpu.gfx in build.gfx)
    if build.accelerator == "cuda" and gpu.capability:
        return _not_older(gpu, build.min_capability) if build.for_host else runs(gpu.capability, build.sass, build.ptx)
    return False


def within(gpu: GpuFacts, lowest: str, highest: str) -> bool:
    """Tell whether a card's compute capability lies in a range, both ends included."""
    return gpu.capability is not None and parse(lowest) <= parse(gpu.capability) <= parse(highest)


def _not_older(gpu: GpuFacts, lowest: str | None) -> bool:
    return lowest is None or gpu.capability is None or parse(gpu.capability) >= parse(lowest)


def _native(card: tuple[int, int], sass: str) -> bool:
    code = parse(sass)
    if code == card:
        return True
    family = code[0] == card[0] and code[1] <= card[1]
    return family and not sass.endswith("a") and card not in _EMBEDDED and code not in _EMBEDDED
