"""What an operation is given and what it returns."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

TYPE_CHECKING = False
if TYPE_CHECKING:  # ``typing`` takes as long to import as Python to start
    from typing import Any

    Values = dict[str, Any]
    Reply = tuple[Values, bytes]
    """What an operation returns: JSON values, and bytes beside them."""
    Event = Callable[[Values, bytes], None]
else:
    Values, Reply, Event = dict, tuple, object


class Cancelled(Exception):  # noqa: N818 - nothing is wrong
    """Nobody wants the operation's result any more."""


class Refusal(Exception):  # noqa: N818 - an answer
    """An operation cannot be done, for a reason that its caller knows how to explain.

    Attributes:
        reason: a fixed word or two.
        data: JSON values that belong to it.
    """

    def __init__(self, reason: str, data: Values | None = None) -> None:
        self.reason, self.data = reason, data or {}
        super().__init__(reason)


class Call:
    """One call of an operation.

    Attributes:
        values: the arguments.
        body: bytes that came with them.
    """

    def __init__(self, values: Values, body: bytes, event: Event, check: Callable[[], None] | None = None) -> None:
        self.values, self.body = values, body
        self._event, self._check = event, check
        self._lock = threading.Lock()
        self._ends: list[Callable[[], None]] = []
        self._cancelled = False

    def event(self, values: Values, body: bytes = b"") -> None:
        """Tell the caller something while the operation goes on."""
        self._event(values, body)

    def check(self) -> None:
        """Raise ``Cancelled`` when the operation is no longer wanted. Called between its steps."""
        if self._check is not None:
            self._check()
        if self._cancelled:
            raise Cancelled

    @property
    def cancelled(self) -> bool:
        """Whether it is no longer wanted."""
        return self._cancelled

    @contextlib.contextmanager
    def ended_by(self, end: Callable[[], None]) -> Iterator[None]:
        """While inside, a cancellation calls ``end`` (from another thread) to end what is waited for."""
        with self._lock:
            self._ends.append(end)
            late = self._cancelled
        if late:
            end()
        try:
            yield
        finally:
            with self._lock:
                self._ends.remove(end)

    def cancel(self) -> None:
        """Say that it is no longer wanted."""
        with self._lock:
            self._cancelled = True
            ends = list(self._ends)
        for end in ends:
            end()


def answer(*, body: bytes = b"", **values: object) -> Reply:
    """Return a reply."""
    return values, body
