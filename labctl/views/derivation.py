"""Where the numbers of a budget come from, in words."""

from __future__ import annotations

from labctl.estimate import WhatIf
from labctl.quantity import format_size
from labctl.vram.footprint import Footprint


def explain_text(name: str, footprint: Footprint) -> str:
    """Return the derivation of every number of a server, in words, with its source."""
    lines = [f"{name}: {format_size(sum(d.total for d in footprint.devices))} on {len(footprint.devices)} card(s)"]
    for i, device in enumerate(footprint.devices):
        lines.append(
            f"  card {i}: weights {format_size(device.weights)}, context {format_size(device.context)},"
            f" compute {format_size(device.compute)}, other {format_size(device.other)}"
        )
    lines.append(f"  host: {format_size(footprint.host)}")
    for step in footprint.steps:
        source = f"  [{step.source}]" if step.source else ""
        lines.append(f"  {step.label:<24} {format_size(step.bytes):>10}  {step.formula}{source}")
    return "\n".join([*lines, *(f"  note: {note}" for note in footprint.notes)])


def max_context_text(answer: WhatIf) -> str:
    """Return the answer to ``--max-context`` as one line."""
    if answer.largest is None:
        return f"{answer.server}: not even a context of 256 tokens fits"
    bound = " (as long as the model was trained for)" if answer.largest == answer.trained else ""
    return f"{answer.server}: up to {answer.largest} tokens of context{bound}; it has {answer.now}"
