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
    waits: bool = False

    def __lt__(self, other: Ticket) -> bool:
        return (self.priority, self.number) < (other.priority, other.number)


@dataclass(slots=True)
class Waiting:
    """The requests for one public name, the next one first. Those that left are skipped when they come up."""

    servers: tuple[str, ...]
    heap: list[Ticket] = field(default_factory=list)
    count: int = 0

    def put(self, ticket: Ticket) -> None:
        """Add one."""
        ticket.waits = True
        self.count += 1
        heapq.heappush(self.heap, ticket)

    def head(self) -> Ticket | None:
        """Return the next one that still waits."""
        while self.heap and (not self.heap[0].waits or self.heap[0].ready.done()):
            self._out(heapq.heappop(self.heap))
        return self.heap[0] if self.heap else None

    def pop(self) -> Ticket:
        """Take the next one out."""
        self.head()
        ticket = heapq.heappop(self.heap)
        self._out(ticket)
        return ticket

    def drop(self, ticket: Ticket) -> bool:
        """Give up the place of one whose client has left; return whether it still had one."""
        waited = ticket.waits
        self._out(ticket)
        if not ticket.ready.done():
            ticket.ready.cancel()
        elif not ticket.ready.cancelled():
            ticket.ready.exception()  # nobody else will look at it
        return waited

    def _out(self, ticket: Ticket) -> None:
        self.count -= ticket.waits
        ticket.waits = False

    def __len__(self) -> int:
        return self.count
