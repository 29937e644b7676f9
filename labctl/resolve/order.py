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
    group: str | None = None
    """The exclusive group in which it takes turns."""


def start_order(starters: Iterable[Starter]) -> Mapping[str, tuple[str, ...]]:
    """Return for each server the ones that must be healthy before it starts.

    On one card, servers that measure free memory come first (the largest first), then the others by size; the order
    depends on nothing else, so it does not change when lab.yaml is rearranged. All cards use one total order, so there
    can be no cycle; each server waits for its nearest predecessor on each of its cards. The members of an exclusive
    group have one place together and never wait for each other: whose turn it is changes nobody's order.
    """
    last: dict[tuple[str, int], frozenset[str]] = {}
    after: dict[str, tuple[str, ...]] = {}
    for together in sorted(_places(starters), key=_rank):
        held: dict[tuple[str, int], frozenset[str]] = {}
        for starter in together:
            cards = [(starter.host, card) for card in starter.cards]
            before = frozenset[str]().union(*(last.get(card, frozenset()) for card in cards))
            after[starter.name] = tuple(sorted(before))
            held |= {card: held.get(card, frozenset()) | {starter.name} for card in cards}
        last |= held
    return after


def _places(starters: Iterable[Starter]) -> Iterable[list[Starter]]:
    """Return the servers that have one place in the order: the members of a group, or one alone."""
    places: dict[tuple[str, str | None, str], list[Starter]] = {}
    for starter in starters:
        key = (starter.host, starter.group, "" if starter.group else starter.name)
        places.setdefault(key, []).append(starter)
    return places.values()


def _rank(together: list[Starter]) -> tuple[str, bool, int, str]:
    measures, most = any(s.measures for s in together), max(s.bytes for s in together)
    return together[0].host, not measures, -most, min(s.name for s in together)
