"""What would make a server fit: settings changed one at a time, each computed and not guessed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from labctl.model.deployment import Deployment
from labctl.quantity import format_size

STEP = 256
"""llama.cpp pads the context to 256 cells; a remedy is a multiple of it."""

Size = Callable[[Deployment], int | None]
"""Bytes on the fullest of its cards that a changed deployment would take, None when that is not known."""


def remedies(spec: Deployment, room: int, size: Size) -> Iterator[str]:
    """Yield changes, as sentences, each of which alone makes the server fit into ``room`` bytes."""
    context = getattr(spec, "context", None)
    if isinstance(context, int):
        best = largest_context(spec, context, room, size)
        if best is not None:
            yield f"`context: {best}` is the largest that fits"
    for kind in ("q8_0", "q4_0"):
        yield from _trial(spec, {"kv_cache": kind}, f"`kv_cache: {kind}`", room, size)
    batch = getattr(spec, "batch", None)
    if batch is not None and batch.physical > 128:
        smaller = batch.model_copy(update={"physical": 128})
        yield from _trial(spec, {"batch": smaller}, "`batch: {physical: 128}`", room, size)


def _trial(spec: Deployment, update: dict[str, Any], words: str, room: int, size: Size) -> Iterator[str]:
    if not set(update) <= set(type(spec).model_fields) or all(getattr(spec, k) == v for k, v in update.items()):
        return
    if "kv_cache" in update and not _accepts(spec, update["kv_cache"]):
        return
    needed = size(spec.model_copy(update=update))
    if needed is not None and needed <= room:
        yield f"{words} fits ({format_size(needed)})"


def _accepts(spec: Deployment, kind: str) -> bool:
    return kind in str(type(spec).model_fields["kv_cache"].annotation)


def largest_context(spec: Deployment, ceiling: int, room: int, size: Size) -> int | None:
    """Return the largest context, a multiple of 256 up to ``ceiling``, whose footprint fits; None when none does."""
    low, high = 0, ceiling // STEP
    while low < high:
        middle = (low + high + 1) // 2
        needed = size(spec.model_copy(update={"context": middle * STEP}))
        if needed is not None and needed <= room:
            low = middle
        else:
            high = middle - 1
    return low * STEP or None
