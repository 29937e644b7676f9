"""The catalogue of cards as text and as JSON."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from labctl.compat.values import GpuFacts
from labctl.quantity import MIB, format_size


def render_cards(cards: Iterable[GpuFacts]) -> str:
    """Return a table: what to write under `model`, its generation, and the memory that programs see."""
    rows = [(card.name, card.architecture, card.capability or card.gfx or "", _memory(card)) for card in cards]
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    return "\n".join(
        f"{name:<{widths[0]}}  {generation:<{widths[1]}}  {kind:<{widths[2]}}  {memory:>9}"
        for name, generation, kind, memory in rows
    )


def cards_json(cards: Iterable[GpuFacts]) -> list[dict[str, Any]]:
    """Return the cards as JSON values; memory in bytes."""
    return [
        {
            "name": card.name,
            "aliases": list(card.aliases),
            "vendor": card.vendor,
            "architecture": card.architecture,
            "capability": card.capability,
            "gfx": card.gfx,
            "memory": card.memory_mib * MIB,
            "power": card.tdp_w,
        }
        for card in cards
    ]


def _memory(card: GpuFacts) -> str:
    return format_size(card.memory_mib * MIB)
