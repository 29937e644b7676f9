"""What would make an overfull card fit: one setting changed at a time, each change computed and not guessed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final, cast

from pydantic import TypeAdapter, ValidationError

from labctl.model.deployment import Deployment
from labctl.quantity import MIB

STEP: Final = 256
"""llama.cpp pads the context to 256 cells; a remedy is a multiple of it."""

CACHES: Final = ("q8_0", "q4_0", "fp8")
"""Types of the KV cache to try, in this order; an engine takes those that it knows."""

Fits = Callable[[Deployment], bool]
"""Whether everything would fit, and nothing else refuse to work, with a deployment changed like this."""


def remedies(spec: Deployment, fits: Fits, over: int) -> Iterator[str]:
    """Yield changes of lab.yaml, each of which alone is enough.

    ``over`` is how much one server of the deployment would have to give up on the card, in bytes.
    """
    yield from _shorter_context(spec, fits)
    for update in _changes(spec, over):
        key, value = next(iter(update.items()))
        if _accepts(spec, key, value) and fits(spec.model_copy(update=update)):
            yield _words(key, value)
            if key == "kv_cache":
                break
    if _allows(spec, "batch"):
        yield from _smaller_batch(spec, fits)


def _changes(spec: Deployment, over: int) -> Iterator[dict[str, Any]]:
    """Yield the changes worth trying, the gentle ones first."""
    for kind in CACHES:
        yield {"kv_cache": kind}
    if getattr(spec, "slots", 1) > 1:
        yield {"slots": 1}
    if isinstance(spec.vram, int) and spec.vram > over:
        yield {"vram": (spec.vram - over) // MIB * MIB}


def _words(key: str, value: object) -> str:
    return f"`vram: {value // MIB} MiB`" if key == "vram" and isinstance(value, int) else f"`{key}: {value}`"


def _allows(spec: Deployment, key: str) -> bool:
    return key in type(spec).model_fields


def _accepts(spec: Deployment, key: str, value: object) -> bool:
    """Whether the engine knows this value, and the deployment has another one now."""
    if not _allows(spec, key) or getattr(spec, key) == value:
        return False
    if key == "vram":
        return True
    try:
        TypeAdapter(cast("type[Any]", type(spec).model_fields[key].annotation)).validate_python(value)
    except ValidationError:
        return False
    return True


def _shorter_context(spec: Deployment, fits: Fits) -> Iterator[str]:
    context = getattr(spec, "context", None)
    if isinstance(context, int):
        best = largest_context(spec, context - 1, fits)
        if best is not None:
            yield f"`context: {best}`, the largest that fits"


def _smaller_batch(spec: Deployment, fits: Fits) -> Iterator[str]:
    batch = getattr(spec, "batch", None)
    for physical in (256, 128):
        if batch is not None and batch.physical > physical:
            smaller = batch.model_copy(update={"physical": physical})
            if fits(spec.model_copy(update={"batch": smaller})):
                yield f"`batch: {{logical: {batch.logical}, physical: {physical}}}`"
                return


def largest_context(spec: Deployment, ceiling: int, fits: Fits) -> int | None:
    """Return the largest context, a multiple of 256 up to ``ceiling``, with which it fits; None when none does."""
    low, high = 0, ceiling // STEP
    while low < high:
        middle = (low + high + 1) // 2
        if fits(spec.model_copy(update={"context": middle * STEP})):
            low = middle
        else:
            high = middle - 1
    return low * STEP or None
