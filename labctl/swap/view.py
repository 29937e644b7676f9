"""What is known at one moment: the input of every decision. Values only; times are seconds of one steady clock."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Phase(StrEnum):
    """Where a server is in its life. It holds its memory from ``starting`` until it is known to be ``stopped``."""

    STOPPED = "stopped"
    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    """Takes no new request; is stopped when those that it has are answered."""
    STOPPING = "stopping"
    FAILED = "failed"
    """Not running; not tried again before ``retry_at``."""

    @property
    def resident(self) -> bool:
        """Whether it holds memory."""
        return self in _RESIDENT


_RESIDENT = frozenset({Phase.STARTING, Phase.READY, Phase.DRAINING, Phase.STOPPING})


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """One server as a decision sees it.

    Attributes:
        name: its name.
        memory: card → bytes that it takes while it is resident.
        slots: requests that it works on at a time.
        busy: requests that it works on now.
        since: when it came into its phase; ``used``: when it last began or ended a request.
        start_cost: seconds that starting it takes.
        pinned: never evicted.
        ttl: seconds without a request after which it is stopped; None for never.
        retry_at: when a failed start may be tried again, or one that cannot be stopped be asked for.
        exclusive: names of the groups of which only one member is resident at a time.
        dismissed: told to stop by hand: it drains although nobody waits for its room.
    """

    name: str
    phase: Phase = Phase.STOPPED
    memory: Mapping[str, int] = field(default_factory=dict)
    slots: int = 1
    busy: int = 0
    since: float = 0.0
    used: float = 0.0
    start_cost: float = 10.0
    pinned: bool = False
    ttl: float | None = None
    retry_at: float = 0.0
    exclusive: frozenset[str] = frozenset()
    dismissed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """The requests that wait for one public name.

    Attributes:
        route: the name.
        servers: who can answer, best first.
        waiting: how many wait.
        head: (priority, number) of the first: the smaller goes first. Meaningless when none waits.
        arrived: when the first one came.
    """

    route: str
    servers: tuple[str, ...]
    waiting: int = 0
    head: tuple[int, int] = (0, 0)
    arrived: float = 0.0


@dataclass(frozen=True, slots=True)
class Rules:
    """What holds for all servers.

    Attributes:
        cards: card → bytes that all resident servers together may take.
        patience: seconds that a request may be overtaken by younger ones for resident servers.
        min_residency: seconds for which a server that became ready is not evicted, unless someone has lost patience.
        longest: seconds after which a request that still waits is answered that nobody could be had.
    """

    cards: Mapping[str, int] = field(default_factory=dict)
    patience: float = 20.0
    min_residency: float = 0.0
    longest: float = float("inf")


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """Everything at one moment."""

    now: float
    servers: Mapping[str, Server]
    queues: tuple[Queue, ...] = ()
    rules: Rules = field(default_factory=Rules)

    def order(self) -> list[Queue]:
        """Return the queues in which somebody waits, the one whose turn it is first."""
        return sorted((q for q in self.queues if q.waiting), key=lambda q: q.head)

    def free(self) -> dict[str, int]:
        """Return card → bytes that no resident server holds."""
        left = dict(self.rules.cards)
        for server in self.servers.values():
            if server.phase.resident:
                for card, size in server.memory.items():
                    left[card] = left.get(card, 0) - size
        return left
