"""What a server loads beside its model: projector, adapters, draft model.

Source: llama.cpp b11549, ``tools/mtmd/clip.cpp`` (the projector's weights lie on the first GPU),
``src/llama-adapter.cpp`` (an adapter's matrices lie with the tensors they change), ``common/speculative.cpp``.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

from labctl.vram.facts import GgufFacts
from labctl.vram.footprint import DeviceBytes, Footprint, Step
from labctl.vram.llama_cpp.model import tensor_bytes
from labctl.vram.llama_cpp.settings import Settings

_BLOCK = re.compile(r"blk\.(\d+)\.")
_SCRATCH = "clip.vision"


def added(footprint: Footprint, settings: Settings, draft: Callable[[Settings], Footprint | None]) -> Footprint:
    """``footprint`` with projector, adapters and draft model."""
    if settings.projector is not None:
        footprint = _with(footprint, _projector(settings.projector), "multimodal projector", "tools/mtmd/clip.cpp")
        note = "The projector's compute buffer is approximated from its image size."
        footprint = replace(footprint, exact=False, notes=(*footprint.notes, note))
    for adapter in settings.lora:
        footprint = _adapted(footprint, adapter)
    other = draft(settings)
    return footprint if other is None else _joined(footprint, other)


def _with(footprint: Footprint, more: DeviceBytes, label: str, source: str) -> Footprint:
    """Add ``more`` to the first GPU, or to the host when there is none."""
    step = Step(label, more.total, "Σ of its tensors, each padded to 128 B, + its compute buffer", source)
    if not footprint.devices:
        return replace(footprint, host=footprint.host + more.total, steps=(*footprint.steps, step))
    first = _sum(footprint.devices[0], more)
    return replace(footprint, devices=(first, *footprint.devices[1:]), steps=(*footprint.steps, step))


def _sum(a: DeviceBytes, b: DeviceBytes) -> DeviceBytes:
    return DeviceBytes(
        weights=a.weights + b.weights,
        context=a.context + b.context,
        compute=a.compute + b.compute,
        other=a.other + b.other,
    )


def _projector(facts: GgufFacts) -> DeviceBytes:
    """Weights exactly; compute as the feed-forward and attention peaks of one image's patches."""
    weights = sum(tensor_bytes(t, host=False) for t in facts.tensors)

    def number(key: str) -> int:
        value = facts.metadata.get(f"{_SCRATCH}.{key}", 0)
        return int(value) if isinstance(value, int | float) else 0

    patch = number("patch_size") or 14
    patches = (number("image_size") // patch) ** 2
    width, inner, heads = number("embedding_length"), number("feed_forward_length"), number("attention.head_count")
    peak = max(3 * width + 2 * inner, 5 * width + patches * heads) * patches * 4
    return DeviceBytes(weights=weights, compute=peak)


def _adapted(footprint: Footprint, facts: GgufFacts) -> Footprint:
    """An adapter's matrices, spread over the GPUs as evenly as the blocks are."""
    total = sum(tensor_bytes(t, host=False) for t in facts.tensors)
    step = Step("LoRA adapter", total, "Σ of its matrices, each padded to 128 B", "src/llama-adapter.cpp")
    if not footprint.devices:
        return replace(footprint, host=footprint.host + total, steps=(*footprint.steps, step))
    blocks = sorted({int(m[1]) for t in facts.tensors if (m := _BLOCK.match(t.name))})
    shares = _shares([d.weights for d in footprint.devices], total)
    devices = tuple(
        replace(device, weights=device.weights + share) for device, share in zip(footprint.devices, shares, strict=True)
    )
    note = f"The adapter changes {len(blocks)} blocks; its own intermediate results are not counted."
    steps, notes = (*footprint.steps, step), (*footprint.notes, note)
    return replace(footprint, devices=devices, steps=steps, notes=notes, exact=False)


def _shares(weights: list[int], total: int) -> list[int]:
    whole = sum(weights)
    if not whole:
        return [total, *[0] * (len(weights) - 1)]
    return [total * w // whole for w in weights]


def _joined(footprint: Footprint, other: Footprint) -> Footprint:
    """Two models in one process."""
    devices = tuple(_sum(a, b) for a, b in zip(footprint.devices, other.devices, strict=True))
    steps = tuple(replace(step, label=f"draft model: {step.label}") for step in other.steps)
    return replace(
        footprint,
        devices=devices,
        host=footprint.host + other.host,
        steps=(*footprint.steps, *steps),
        exact=footprint.exact and other.exact,
        notes=(*footprint.notes, "The draft model has the context and slots of the model itself."),
    )
