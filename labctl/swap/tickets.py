"""Requests on their way to a server, and the queues in which they wait."""

from __future__ import annotations

import asyncio
import heapq
from dataclasses import dataclass, field


class Unavailable(Exception):  # noqa: N818 - an answer, not a fault
    """No server can be had. ``retry_after`` in seconds."""

    def __init__(self, why: str, retry_after: float = 5.0) -> None:
        self.why, self.retry_after = why, retry_after
        super().__init__(why)


@dataclass(slots=True, eq=False)
class Ticket:
    """One request on its way to a server. ``ready`` is resolved with the server's name."""

    number: int
    route: str
    priority: int
    arrived: float
    ready: asyncio.Future[str]
    server: str = ""
    returned: int = 0
    """How often its server was lost before it had answered."""

    def __lt__(self, other: Ticket) -> bool:
        return (self.priority, self.number) < (other.priority, other.number)


@dataclass(slots=True)
class Waiting:
    """The requests for one public name, the next one first. Those that left are skipped when they come up."""

    servers: tuple[str, ...]
    heap: list[Ticket] = field(default_factory=list)
    left: int = 0

    def put(self, ticket: Ticket) -> None:
        """Add one."""
        heapq.heappush(self.heap, ticket)

    def head(self) -> Ticket | None:
        """Return the next one that still waits."""
        while self.heap and self.heap[0].ready.done():
            heapq.heappop(self.heap)
            self.left = max(0, self.left - 1)
        return self.heap[0] if self.heap else None

    def pop(self) -> Ticket:
        """Take the next one out."""
        self.head()
        return heapq.heappop(self.heap)

    def __len__(self) -> int:
        return len(self.heap) - self.left
