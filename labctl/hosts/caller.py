"""Calling the agent's operations: what calls have in common, and the direct way on this machine."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, Protocol

from labctl.agent.call import Call, Cancelled
from labctl.agent.operations import OPERATIONS
from labctl.agent.processes import own_name
from labctl.hosts.base import Me
from labctl.values import dataclass

TICK: Final = 0.2
"""Seconds between two looks at whether a call is still wanted."""

Values = Mapping[str, Any]
Told = Callable[[Values, bytes], None]
Check = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Answer:
    """What an operation returned."""

    values: Values
    body: bytes = b""


class Caller(Protocol):
    """A way to an agent. Calls may come from any thread, many at a time."""

    def call(
        self,
        operation: str,
        values: Values,
        body: bytes = b"",
        *,
        event: Told | None = None,
        check: Check | None = None,
    ) -> Answer:
        """Carry out an operation and return its answer.

        Args:
            operation: one of ``OPERATIONS``.
            values: JSON values.
            body: bytes beside them.
            event: is told, in this thread, what the operation tells while it goes on.
            check: called every ``TICK`` seconds at least; when it raises, the operation is cancelled first.

        Raises:
            OSError: the operating system refused.
            Refusal: the operation could not be done.
            HostError: the host cannot be reached, or the connection broke.
        """
        ...

    def events(self, operation: str, values: Values) -> Iterator[bytes]:
        """Carry out an operation and yield the bytes of its events; closing the iterator cancels it."""
        ...

    def me(self) -> Me:
        """Return who works on the host."""
        ...


class DirectCaller:
    """``Caller`` for this machine: the operations are called as they are."""

    def call(
        self,
        operation: str,
        values: Values,
        body: bytes = b"",
        *,
        event: Told | None = None,
        check: Check | None = None,
    ) -> Answer:
        """Call the function, in this thread; what it and ``check`` raise goes through."""
        call = Call(dict(values), body, event or _nothing, check)
        return Answer(*OPERATIONS[operation].load()(call))

    def events(self, operation: str, values: Values) -> Iterator[bytes]:
        """Call the function in a thread, yield what it sends."""
        told = queue.SimpleQueue[bytes | BaseException | None]()
        call = Call(dict(values), b"", lambda _, body: told.put(body))

        def work() -> None:
            try:
                OPERATIONS[operation].load()(call)
            except Cancelled:
                told.put(None)
            except Exception as error:  # raised where the iterator is read
                told.put(error)
            else:
                told.put(None)

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        try:
            while (found := told.get()) is not None:
                if isinstance(found, BaseException):
                    raise found
                yield found
        finally:
            call.cancel()
            thread.join()

    def me(self) -> Me:
        """Return who runs labctl."""
        from labctl.agent.serve import about  # noqa: PLC0415 - needs what only an agent needs

        return Me(**{**about(), "process": own_name()})


def _nothing(values: Values, body: bytes) -> None:
    """Take an event that nobody asked for."""
