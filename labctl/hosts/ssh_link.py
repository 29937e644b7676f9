"""One live connection to one agent: a program (ssh) with pipes, and the calls that wait for answers."""

from __future__ import annotations

import contextlib
import itertools
import queue
import subprocess
import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import IO, Any, Final

from labctl.agent import frames
from labctl.agent.call import Cancelled, Refusal
from labctl.agent.frames import ProtocolError, Reader, Writer
from labctl.hosts.bootstrap import PROMPT, READY, TROUBLE, payload
from labctl.hosts.caller import TICK, Answer, Check, Told, Values
from labctl.values import dataclass

GREETING: Final = 60.0
"""Seconds until the agent has to answer."""
ENDING: Final = 5.0
"""Seconds until a program whose pipes are closed has to end."""
CANCELLING: Final = 15.0
"""Seconds until a cancelled operation has to end."""
NOISE: Final = 1 << 20
"""Bytes that login scripts may print before the agent greets."""
KEPT: Final = 64 << 10
"""Bytes of what ssh and the host say that are kept for messages."""


class BrokenLinkError(Exception):
    """The connection ended before the answer came."""


class BugError(Exception):
    """An operation failed in a way that nobody thought of; the agent's traceback."""


@dataclass(frozen=True, slots=True)
class End:
    """How a connection ended.

    Attributes:
        code: exit status of ssh; 255 for ssh's own problems. None when it had to be killed.
        said: what ssh and the host said on standard error.
        printed: what came instead of an agent's greeting.
        started: Python ran on the host.
        greeted: the agent had greeted.
        late: it took longer than ``GREETING`` seconds.
        prompts: how often sudo asked for a password.
    """

    code: int | None
    said: str
    printed: str
    started: bool
    greeted: bool
    late: bool
    prompts: int


Message = tuple[int, dict[str, Any], bytes]
_GONE: Final[Message] = (0, {}, b"")


class Link:
    """Starts the program, sends the agent, and lets many threads call its operations."""

    def __init__(self, argv: Sequence[str], env: Mapping[str, str], password: str | None = None) -> None:
        """Start the program and return at once. OSError when there is no such program.

        Args:
            argv: ssh with its arguments.
            env: its environment.
            password: what to answer when sudo asks.
        """
        self._process = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=env,
            start_new_session=True,  # Ctrl-C is for labctl
        )
        self._in, self._out, self._err = _pipes(self._process)
        self._password = password
        self._writer = Writer(self._in)
        self._lock = threading.Lock()
        self._waiting: dict[int, queue.SimpleQueue[Message]] = {}
        self._numbers = itertools.count(1)
        self._greeted, self._over = threading.Event(), threading.Event()
        self._said, self._printed, self._started = bytearray(), bytearray(), False
        self._prompts, self._late = 0, False
        self.about: Mapping[str, Any] = {}
        """What the agent said of itself; empty until ``greeting`` returns."""
        self.end: End | None = None
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()
        threading.Thread(target=self._read, daemon=True).start()
        if password is None:
            self._send_agent()

    @property
    def alive(self) -> bool:
        """Whether calls can still be made."""
        return not self._over.is_set()

    def greeting(self) -> None:
        """Wait for the agent. BrokenLinkError when it does not come; ``end`` then says why."""
        if not self._greeted.wait(GREETING):
            self._late = True
            self._process.kill()
            self._over.wait(ENDING)
        if not self.about:
            raise BrokenLinkError

    def call(
        self, operation: str, values: Values, body: bytes, *, event: Told | None = None, check: Check | None = None
    ) -> Answer:
        """Carry out an operation. BrokenLinkError when the connection ends before the answer; see ``Caller``."""
        number, messages = self._ask(operation, values, body)
        try:
            return self._await(number, messages, event, check)
        finally:
            with self._lock:
                self._waiting.pop(number, None)

    def stream(self, operation: str, values: Values) -> Generator[bytes, None, None]:
        """Carry out an operation and yield the bytes of its events; closing the generator cancels it."""
        number, messages = self._ask(operation, values, b"")
        ended = False
        try:
            while True:
                kind, values, body = messages.get()
                if kind != frames.EVENT:
                    ended = True
                    _answer(kind, dict(values), body)
                    return
                yield body
        finally:
            if not ended:
                self.cancel(number, messages)
            with self._lock:
                self._waiting.pop(number, None)

    def close(self) -> None:
        """End the connection."""
        with contextlib.suppress(OSError, ValueError):
            self._in.close()
        try:
            self._process.wait(ENDING)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._over.wait(ENDING)

    def _ask(self, operation: str, values: Values, body: bytes) -> tuple[int, queue.SimpleQueue[Message]]:
        number, messages = next(self._numbers), queue.SimpleQueue[Message]()
        with self._lock:
            self._waiting[number] = messages
        self._send_or_break(frames.CALL, number, {**values, "operation": operation}, body)
        if self._over.is_set():
            messages.put(_GONE)
        return number, messages

    def _await(
        self, number: int, messages: queue.SimpleQueue[Message], event: Told | None, check: Check | None
    ) -> Answer:
        while True:
            try:
                kind, values, body = messages.get(timeout=None if check is None else TICK)
                if kind == frames.EVENT and event is not None:
                    event(values, body)
            except queue.Empty:
                kind, values, body = frames.EVENT, {}, b""
            except BaseException:
                self.cancel(number, messages)
                raise
            if kind != frames.EVENT:
                return _answer(kind, values, body)
            if check is not None:
                try:
                    check()
                except BaseException:
                    self.cancel(number, messages)
                    raise

    def cancel(self, number: int, messages: queue.SimpleQueue[Message]) -> None:
        """Ask for an operation's end and wait for it."""
        self._send_or_break(frames.CANCEL, number, {}, b"")
        with contextlib.suppress(queue.Empty):
            while messages.get(timeout=CANCELLING)[0] == frames.EVENT:
                pass

    def _send_or_break(self, kind: int, number: int, values: dict[str, Any], body: bytes) -> None:
        try:
            self._writer.send(kind, number, values, body)
        except (OSError, ValueError):
            self._over.wait(ENDING)

    def _send_agent(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._in.write(payload())
            self._in.flush()

    def _read(self) -> None:
        """The thread that reads what the agent sends."""
        with contextlib.suppress(ProtocolError, OSError, ValueError):
            if self._skip_noise():
                self._receive()
        self._finish()

    def _skip_noise(self) -> bool:
        """Read up to the agent's greeting; False when the program ends before it."""
        size = 0
        while size < NOISE and (line := self._out.readline()):
            if line == READY:
                self._started = True
                if self._password is not None:
                    self._send_agent()
            elif line == frames.MAGIC.lstrip():
                return True
            elif line.strip():
                self._printed += line[:KEPT]
            size += len(line)
        return False

    def _receive(self) -> None:
        reader = Reader(self._out)
        while (frame := reader.receive()) is not None:
            kind, number, values, body = frame
            if kind == frames.HELLO:
                self.about = values
                self._greeted.set()
                continue
            with self._lock:
                messages = self._waiting.get(number)
            if messages is not None:
                messages.put((kind, values, body))

    def _finish(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._in.close()
        try:
            code: int | None = self._process.wait(ENDING)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            code = None
        self._listener.join(ENDING)
        for pipe in (self._out, self._err):
            with contextlib.suppress(OSError, ValueError):
                pipe.close()
        said, printed = (bytes(b[-KEPT:]).decode(errors="replace") for b in (self._said, self._printed))
        self.end = End(
            None if self._late else code, said, printed, self._started, bool(self.about), self._late, self._prompts
        )
        self._over.set()
        self._greeted.set()
        with self._lock:
            for messages in self._waiting.values():
                messages.put(_GONE)

    def _listen(self) -> None:
        """The thread that reads standard error, and answers sudo."""
        with contextlib.suppress(OSError, ValueError):
            while chunk := self._err.read1(KEPT):  # type: ignore[attr-defined]
                self._said += chunk
                del self._said[: -2 * KEPT]
                if self._password is not None:
                    self._answer_sudo()

    def _answer_sudo(self) -> None:
        """Give the password once; when sudo asks again, it was wrong."""
        asked = self._said.count(PROMPT.encode())
        if asked > self._prompts:
            self._prompts = asked
            with contextlib.suppress(OSError, ValueError):
                if asked > 1 or self._started:
                    self._in.close()
                else:
                    self._in.write(f"{self._password}\n".encode())
                    self._in.flush()


def trouble(end: End) -> tuple[str, ...]:
    """Return the words of the command's own complaint, e.g. ``("no-python",)``."""
    for line in end.said.splitlines():
        if line.startswith(TROUBLE):
            return tuple(line.split()[1:])
    return ()


def _answer(kind: int, values: dict[str, Any], body: bytes) -> Answer:
    """Return what an operation returned, or raise what it raised."""
    if kind == frames.RESULT:
        return Answer(values, body)
    raise _PROBLEMS[kind](values)


def _os_error(values: Mapping[str, Any]) -> Exception:
    if values["errno"] is None:
        return OSError(values["text"])
    named = () if values["file"] is None else (values["file"],)
    return OSError(values["errno"], values["text"], *named)


_PROBLEMS: Final[Mapping[int, Callable[[Mapping[str, Any]], Exception]]] = {
    _GONE[0]: lambda _: BrokenLinkError(),
    frames.OS_ERROR: _os_error,
    frames.REFUSAL: lambda values: Refusal(values["reason"], values["data"]),
    frames.CANCELLED: lambda _: Cancelled(),
    frames.BUG: lambda values: BugError(values["trace"]),
}


def _pipes(process: subprocess.Popen[bytes]) -> tuple[IO[bytes], IO[bytes], IO[bytes]]:
    if process.stdin is None or process.stdout is None or process.stderr is None:
        raise ValueError(process.args)
    return process.stdin, process.stdout, process.stderr
