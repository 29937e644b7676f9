"""The agent's main loop: calls come in on standard input, each is carried out in a thread of its own."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time

from labctl.agent.call import Call, Cancelled, Refusal
from labctl.agent.frames import (
    BUG,
    CALL,
    CANCEL,
    CANCELLED,
    EVENT,
    HELLO,
    MAGIC,
    OS_ERROR,
    REFUSAL,
    RESULT,
    ProtocolError,
    Reader,
    Writer,
)
from labctl.agent.operations import OPERATIONS
from labctl.agent.processes import own_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import IO, Any

GRACE = 5.0
"""Seconds that changes under way get to end by themselves when the connection has gone, and again after SIGTERM."""
TICK = 0.05


class Server:
    """Carries out calls until its input ends."""

    def __init__(self, source: IO[bytes], target: IO[bytes]) -> None:
        self._reader, self._target, self._writer = Reader(source), target, Writer(target)
        self._calls: dict[int, tuple[Call, bool]] = {}
        self._lock = threading.Lock()

    def serve(self) -> None:
        """Greet, then work until there are no more calls; end what is still going on."""
        try:
            self._target.write(MAGIC)
            self._writer.send(HELLO, 0, about())
            while (frame := self._reader.receive()) is not None:
                self._take(*frame)
        except (ProtocolError, OSError):
            pass
        self._end()

    def _take(self, kind: int, number: int, values: dict[str, Any], body: bytes) -> None:
        if kind == CANCEL:
            with self._lock:
                found = self._calls.get(number)
            if found is not None:
                found[0].cancel()
        elif kind == CALL:
            name = str(values.pop("operation"))
            call = Call(values, body, lambda event, data: self._writer.send(EVENT, number, event, data))
            with self._lock:
                self._calls[number] = call, name in OPERATIONS and OPERATIONS[name].changes
            threading.Thread(target=self._work, args=(number, name, call), daemon=True).start()

    def _work(self, number: int, name: str, call: Call) -> None:
        kind, values, body = self._outcome(name, call)
        with self._lock:
            self._calls.pop(number, None)
        try:
            self._writer.send(kind, number, values, body)
        except (OSError, ValueError):
            return

    def _outcome(self, name: str, call: Call) -> tuple[int, dict[str, Any], bytes]:
        try:
            return (RESULT, *OPERATIONS[name].load()(call))
        except Cancelled:
            return CANCELLED, {}, b""
        except Refusal as refusal:
            return REFUSAL, {"reason": refusal.reason, "data": refusal.data}, b""
        except OSError as error:
            named = None if error.filename is None else os.fsdecode(error.filename)
            return OS_ERROR, {"errno": error.errno, "text": error.strerror or str(error), "file": named}, b""
        except Exception:  # a bug: its caller shows it
            import traceback  # noqa: PLC0415 - slow to import, and hardly ever needed

            return BUG, {"trace": traceback.format_exc()}, b""

    def _end(self) -> None:
        """Let changes finish for a moment, then ask everything to stop, then leave."""
        self._cancel(only_reading=True)
        self._await()
        self._cancel(only_reading=False)
        self._await()

    def _cancel(self, *, only_reading: bool) -> None:
        with self._lock:
            calls = list(self._calls.values())
        for call, changes in calls:
            if not (only_reading and changes):
                call.cancel()

    def _await(self) -> None:
        deadline = time.monotonic() + GRACE
        while self._calls and time.monotonic() < deadline:
            time.sleep(TICK)


def about() -> dict[str, Any]:
    """Return what a caller wants to know of the agent before anything else."""
    return {
        "python": ".".join(str(n) for n in sys.version_info[:3]),
        "machine": os.uname().machine,
        "name": os.uname().nodename,
        "uid": os.geteuid(),
        "home": os.path.expanduser("~"),
        "process": own_name(),
    }


def main() -> None:
    """Serve standard input and output; nothing else may write there. A closed terminal does not end the agent."""
    signal.signal(signal.SIGHUP, lambda *_: None)
    os.umask(0o022)
    source, target = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    Server(source, target).serve()
    os._exit(0)
