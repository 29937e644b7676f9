"""Where the numbers of a budget come from, in words."""

from __future__ import annotations

from collections.abc import Sequence

from labctl.estimate import WhatIf
from labctl.quantity import format_size
from labctl.vram.footprint import DeviceBytes, Footprint


def explain_text(names: Sequence[str], footprint: Footprint) -> str:
    """Return the derivation of every number of one server, or of several equal ones, in words, with its source."""
    cards = len(footprint.devices)
    total = format_size(sum(d.total for d in footprint.devices))
    where = "without a card" if not cards else f"{total} on " + ("one card" if cards == 1 else f"{cards} cards")
    lines = [f"{_who(names)}: {where}"]
    lines += [f"  card {i}: {_parts(device)}" for i, device in enumerate(footprint.devices)]
    lines += [f"  host: {format_size(footprint.host)}", ""]
    width = max((len(step.label) for step in footprint.steps), default=0)
    for step in footprint.steps:
        lines.append(f"  {step.label:<{width}}  {format_size(step.bytes):>10}  {step.formula}")
        lines += [f"  {'':<{width}}  {'':>10}  ({step.source})"] if step.source else []
    return "\n".join([*lines, *(f"  note: {note}" for note in footprint.notes)])


def _who(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names)} (equal, each)"


def _parts(device: DeviceBytes) -> str:
    named = (
        ("weights", device.weights),
        ("context", device.context),
        ("compute", device.compute),
        ("other", device.other),
    )
    return f"{format_size(device.total)} = " + " + ".join(f"{name} {format_size(size)}" for name, size in named if size)


def max_context_text(names: Sequence[str], answer: WhatIf) -> str:
    """Return the answer to ``--max-context`` as one line; ``names`` are the servers that it holds for."""
    if answer.largest is None:
        return f"{', '.join(names)}: not even a context of 256 tokens fits"
    bound = " (as long as the model was trained for)" if answer.largest == answer.trained else ""
    return f"{', '.join(names)}: up to {answer.largest} tokens of context{bound}; now {answer.now}"
