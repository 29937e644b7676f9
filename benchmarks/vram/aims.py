"""What the estimates aim at, group by group: a reader sees at a glance whether each figure meets its aim.

An aim that is missed does not fail the run; the bounds that must hold are tests.
"""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.vram.score import Score

MIB = 2**20
FALSE_REFUSALS = 0.5
"""Per cent of the decisions near a card's limit; false fits must be none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Aim:
    """Largest errors in per cent; None: nothing is aimed at. ``worst_bytes`` excuses a ``worst`` that is missed."""

    median: float | None = None
    p95: float | None = None
    worst: float | None = None
    worst_bytes: int = 0

    def __str__(self) -> str:
        if self.worst_bytes:
            return f"max ≤ {self.worst:g} or {self.worst_bytes // MIB} MiB"
        return " / ".join("–" if bound is None else f"{bound:g}" for bound in (self.median, self.p95, self.worst))

    def met(self, got: Score) -> bool:
        """Whether a group's score meets every part of the aim, decisions included."""
        small = got.worst_bytes <= self.worst_bytes
        return (
            (self.median is None or got.median <= self.median)
            and (self.p95 is None or got.p95 <= self.p95)
            and (self.worst is None or got.worst <= self.worst or small)
            and got.false_fits == 0
            and got.false_refusals <= FALSE_REFUSALS
        )


FULL = Aim(median=0.1, p95=0.5, worst=2)
PARTIAL = Aim(median=1, p95=5, worst=10)
SEVERAL = Aim(median=1, p95=5)
ENCODERS = Aim(worst=5, worst_bytes=32 * MIB)
_BY_ENDING = {
    "full offload": FULL,
    "partial offload": PARTIAL,
    "several GPUs": SEVERAL,
    "encoders": ENCODERS,
}


def aim_of(group: str) -> Aim | None:
    """The aim of a group, whatever its build; None for servers on the CPU alone."""
    return next((aim for ending, aim in _BY_ENDING.items() if group.endswith(ending)), None)


def verdict(met: bool | None) -> str:  # noqa: FBT001
    """``met``, ``MISSED``, or a dash where there is no aim or nothing was compared."""
    return "–" if met is None else "met" if met else "MISSED"
