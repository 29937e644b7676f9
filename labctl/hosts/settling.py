"""Waiting until a healthy server has taken all the memory that it takes, before its neighbour on the card measures."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from labctl.hosts.base import Site

POLL: Final = 0.5
"""Seconds between two looks."""
LIMIT: Final = 15.0
"""Seconds after which the neighbour starts whatever happens: somebody else may be using the card."""
GROWTH: Final = 0.01
"""Part of the memory in use by which it may grow between two looks and still count as settled."""
_USED: Final = (
    "cat /sys/class/drm/card*/device/mem_info_vram_used 2>/dev/null; "
    "nvidia-smi --query-gpu=memory.used --format=csv,noheader,nounits 2>/dev/null; true"
)
"""The memory in use of every card that amdgpu or NVIDIA's driver knows, a number per line."""


def settle(site: Site, check: Callable[[], None]) -> None:
    """Return when no card's memory grows any more. On a host without cards, at once."""
    before, deadline = _used(site), time.monotonic() + LIMIT
    while before and time.monotonic() < deadline:
        check()
        time.sleep(POLL)
        now = _used(site)
        if len(now) == len(before) and all(n <= b * (1 + GROWTH) for n, b in zip(now, before, strict=True)):
            return
        before = now


def _used(site: Site) -> list[int]:
    lines = site.shell.run(["sh", "-c", _USED], timeout=30).out.split()
    return [int(line) for line in lines if line.isdecimal()]
