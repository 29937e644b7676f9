"""How good estimates are: error of the total, and wrong decisions whether a model fits a card."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

CARDS = (4, 6, 8, 10, 11, 12, 16, 20, 24, 32, 40, 48, 64, 80, 96)
"""Card sizes in GiB."""
NEAR = 0.25
"""A decision counts when the truth is within this share of the card's size: others are easy."""

Pair = tuple[int, int]
"""Estimate and truth in bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """Errors in per cent of the truth; decisions in per cent of those near a card's limit.

    Attributes:
        rows: compared pairs.
        median: median error.
        p95: 95th percentile of the error.
        worst: largest error.
        worst_bytes: largest error in bytes.
        false_fits: decisions "fits" where it does not.
        false_refusals: decisions "does not fit" where it does.
        decisions: decisions near a limit.
    """

    rows: int
    median: float
    p95: float
    worst: float
    worst_bytes: int
    false_fits: float
    false_refusals: float
    decisions: int


def errors(pairs: Sequence[Pair]) -> list[float]:
    """Relative errors in per cent, sorted."""
    return sorted(abs(estimate - truth) / truth * 100 for estimate, truth in pairs if truth)


def score(pairs: Sequence[Pair]) -> Score:
    """Score of one group; there must be at least one pair. A truth of 0 counts in ``worst_bytes`` alone."""
    found = errors(pairs) or [0.0]
    fits = [d for pair in pairs for d in decisions(pair)]
    share = 100 / len(fits) if fits else 0.0
    return Score(
        rows=len(pairs),
        median=median(found),
        p95=found[int(0.95 * (len(found) - 1))],
        worst=found[-1],
        worst_bytes=max(abs(estimate - truth) for estimate, truth in pairs),
        false_fits=share * sum(estimated and not true for estimated, true in fits),
        false_refusals=share * sum(true and not estimated for estimated, true in fits),
        decisions=len(fits),
    )


def decisions(pair: Pair) -> list[tuple[bool, bool]]:
    """(estimated, true) answers to "does it fit?" for every card whose size is near the truth."""
    estimate, truth = pair
    sizes = [card * 2**30 for card in CARDS if abs(truth - card * 2**30) <= NEAR * card * 2**30]
    return [(estimate <= size, truth <= size) for size in sizes]
