"""Start order: servers that share a card start one after the other, each when the one before is healthy.

Two servers that load at once charge each other's memory (vllm-project/vllm#55827), and one that measures free memory
must not see a neighbour come or go meanwhile (vllm#56830).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from labctl.values import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Starter:
    """A server as far as its start matters."""

    name: str
    host: str
    cards: frozenset[int]
    measures: bool
    """It takes what is free when it starts."""
    bytes: int


def start_order(starters: Iterable[Starter]) -> Mapping[str, tuple[str, ...]]:
    """Return for each server the ones that must be healthy before it starts.

    On one card, servers that measure free memory come first (the largest first), then the others by size; the order
    depends on nothing else, so it does not change when lab.yaml is rearranged. All cards use one total order, so there
    can be no cycle; each server waits for its nearest predecessor on each of its cards.
    """
    ordered = sorted(starters, key=lambda s: (s.host, not s.measures, -s.bytes, s.name))
    last: dict[tuple[str, int], str] = {}
    after: dict[str, tuple[str, ...]] = {}
    for starter in ordered:
        cards = sorted(starter.cards)
        before = {last[starter.host, card] for card in cards if (starter.host, card) in last}
        after[starter.name] = tuple(sorted(before))
        for card in cards:
            last[starter.host, card] = starter.name
    return after
