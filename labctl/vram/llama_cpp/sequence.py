"""Which blocks to build: a run of equal blocks is cut to a few, which leaves every buffer's size as it is.

Two blocks are equal when they have the same tensors by shape, lie on the same devices, and are of the same kind. After
two or three equal blocks the allocator's free list repeats, so more of them allocate the same addresses again.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from labctl.vram.llama_cpp.cache import Cache
from labctl.vram.llama_cpp.placement import Placement

KEPT = 3
"""Repetitions of a pattern that are built, at least."""
STRIDE = 2
"""Repetitions are dropped in multiples of this: addresses may take turns between two neighbouring blocks."""
LONGEST = 8
"""Longest pattern looked for, in blocks."""
PERIODIC = {"llama4": 4, "smollm3": 4, "exaone4": 4}
"""Architectures whose blocks differ by position (rotary positions in some) without the file showing it."""


def shortened(placement: Placement, cache: Cache) -> list[int]:
    """Indices of the blocks to build, in order."""
    model = placement.model
    period = PERIODIC.get(model.arch, 0)
    plain, typed = model.patterns
    experts = placement.settings.cpu_moe_layers
    kinds = []
    for il in range(model.layers):
        device = placement.layer(il)
        by_type = device == placement.gpus or il < experts
        pattern = (by_type, typed[il] if by_type else plain[il], il < experts)
        place = (device, model.swa(il), model.recurrent(il), cache.attends(il), period and il % period)
        kinds.append((pattern, place))
    return cut(kinds)


def cut(kinds: Sequence[Hashable]) -> list[int]:
    """Drop repetitions of the shortest repeating patterns beyond the third, wherever they are."""
    numbers: dict[Hashable, int] = {}
    ids = [numbers.setdefault(kind, len(numbers)) for kind in kinds]
    kept: list[int] = []
    i = 0
    while i < len(ids):
        best, skip = 1, 0
        for period in range(1, LONGEST + 1):
            end = i + period
            while end < len(ids) and ids[end] == ids[end - period]:
                end += 1
            extra = ((end - i) // period - KEPT) // STRIDE * STRIDE
            if extra > 0 and extra * period > skip:
                best, skip = period, extra * period
        if skip:
            kept += range(i, i + (KEPT - 1) * best)
            i += (KEPT - 1) * best + skip
        else:
            kept.append(i)
            i += 1
    return kept
