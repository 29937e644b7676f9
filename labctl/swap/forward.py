"""Passing a request on and its answer back, byte for byte, no faster than the client reads."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from labctl.swap.asgi import Gone, Header, Problem, Send
from labctl.swap.asked import Asked
from labctl.swap.config import Backend
from labctl.swap.upstream import CONNECT, Address, Connection, Connections, address

HOP: Final = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"host",
        b"content-length",
        b"authorization",
        b"x-api-key",
        b"accept-encoding",
        b"expect",
        b"origin",
        b"cookie",
        b"date",
        b"server",
    }
)
"""Headers that belong to one connection, or to the gateway itself: keys are not shown to servers."""
NOT_BACK: Final = (HOP - {b"content-length"}) | {
    b"access-control-allow-credentials",
    b"access-control-allow-headers",
    b"access-control-allow-methods",
    b"access-control-allow-origin",
    b"access-control-expose-headers",
    b"x-request-id",
}
"""Headers of a server's answer that are the gateway's to say: llama.cpp lets every web page read it."""
STALLED: Final = 60.0
"""Seconds for which a client may take nothing of its answer."""
TAIL: Final = 4096
"""Bytes at an answer's end in which the number of tokens is looked for."""
_TOKENS: Final = re.compile(rb'"(prompt|input|completion|output)_tokens"\s*:\s*(\d+)')

_KINDS: Final = MappingProxyType(
    {b"prompt": "prompt", b"input": "prompt", b"completion": "completion", b"output": "completion"}
)


class NotTaken(Exception):  # noqa: N818 - another attempt may do
    """The server did not take the request: nothing of an answer was sent to the client."""


@dataclass(slots=True)
class Answer:
    """How a request was answered."""

    status: int = 0
    begun: float = 0.0
    size: int = 0
    tail: bytes = b""
    headers: list[Header] = field(default_factory=list)
    events: bool = False
    sending: bool = False

    def tokens(self) -> dict[str, int]:
        """Return ``prompt`` and ``completion`` tokens where the server said so, in either API's words."""
        return {_KINDS[kind]: int(count) for kind, count in _TOKENS.findall(self.tail)}


class Forwarder:
    """Sends requests to servers over kept connections, and once more over a fresh one when a kept one was closed.

    A server may close a kept connection at the very moment at which a request is sent on it (llama.cpp does after each
    stream): that says nothing about the server.
    """

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._addresses: dict[str, Address] = {}

    async def forward(
        self, target: bytes, headers: Iterable[Header], asked: Asked, backend: Backend, send: Send
    ) -> Answer:
        """Pass one request on. NotTaken before the answer began; Problem (502, 504) names the server at fault."""
        if backend.url not in self._addresses:
            self._addresses[backend.url] = address(backend.url)
        to = self._addresses[backend.url]
        connection = await self._connection(to, fresh=asked.rest is not None)
        kept = connection.reused
        try:
            return await _exchange(connection, target, headers, asked, backend, send)
        except NotTaken:
            if not kept:
                raise
        connection = await self._connection(to, fresh=True)
        return await _exchange(connection, target, headers, asked, backend, send)

    async def _connection(self, to: Address, *, fresh: bool) -> Connection:
        try:
            return await self._connections.take(to, fresh=fresh)
        except OSError as error:
            raise NotTaken(str(error) or f"no connection within {CONNECT:g} s") from error


async def _exchange(
    connection: Connection, target: bytes, headers: Iterable[Header], asked: Asked, backend: Backend, send: Send
) -> Answer:
    body = asked.payload(backend.model)
    length = len(body) if isinstance(body, bytes) else asked.rest.length(backend.model) if asked.rest else None
    answer = Answer(headers=[header for header in headers if header[0] == b"x-request-id"])
    try:
        head = _head(connection.to, target, headers, length)
        connection.send(head, body, backend.timeout, chunked=length is None)
        await connection.head()
        with _NoSlower(answer):
            await _pass_back(connection, send, answer)
    except TimeoutError as error:
        raise await _broken_off(_late(backend, answer), answer, send) from error
    except OSError as error:
        if asked.rest is not None and asked.rest.problem is not None:
            raise asked.rest.problem from error
        if not answer.status and asked.repeatable:
            raise NotTaken(str(error) or type(error).__name__) from error
        raise await _broken_off(_broken(backend, answer, error), answer, send) from error
    finally:
        connection.release()
    return answer


async def _pass_back(connection: Connection, send: Send, answer: Answer) -> None:
    headers = [header for header in connection.headers if header[0] not in NOT_BACK]
    answer.status, answer.begun = connection.status, asyncio.get_running_loop().time()
    answer.events = any(k == b"content-type" and v.startswith(b"text/event-stream") for k, v in headers)
    await send({"type": "http.response.start", "status": connection.status, "headers": headers + answer.headers})
    more = True
    while more:
        piece = await connection.piece()
        more = not connection.complete  # if it is, then this was all there was
        answer.size += len(piece)
        answer.tail = piece[-TAIL:] if len(piece) >= TAIL else (answer.tail + piece)[-TAIL:]
        answer.sending = True
        await send({"type": "http.response.body", "body": piece, "more_body": more})
        answer.sending = False


class _NoSlower:
    """Treats a client that takes nothing for ``STALLED`` seconds as one that has left: others wait for its place."""

    def __init__(self, answer: Answer) -> None:
        self._answer, self._late = answer, False

    def __enter__(self) -> None:
        self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        self._timer = self._loop.call_later(STALLED, self._look, -1)

    def _look(self, size: int) -> None:
        if self._answer.sending and self._answer.size == size and self._task is not None:
            self._late = True
            self._task.cancel()
        else:
            self._timer = self._loop.call_later(STALLED, self._look, self._answer.size)

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
        if self._late and self._task is not None:
            self._task.uncancel()
            raise Gone


async def _broken_off(problem: Problem, answer: Answer, send: Send) -> Problem:
    """Return the problem; a stream of events that had begun is ended with one that says it."""
    if answer.events and (not answer.tail or answer.tail.endswith((b"\n\n", b"\r\n\r\n"))):
        await send({"type": "http.response.body", "body": b"data: " + problem.body() + b"\n\n"})
    return problem


def _head(to: Address, target: bytes, headers: Iterable[Header], length: int | None) -> bytes:
    lines = [b"POST %b%b HTTP/1.1\r\nhost: %b\r\n" % (to.prefix, target, to.name)]
    lines += [b"%b: %b\r\n" % header for header in headers if header[0] not in HOP]
    lines.append(b"transfer-encoding: chunked\r\n\r\n" if length is None else b"content-length: %d\r\n\r\n" % length)
    return b"".join(lines)


def _late(backend: Backend, answer: Answer) -> Problem:
    message = f"{backend.name} did not answer within {backend.timeout:g} s"
    return Problem(504 if not answer.status else 0, message, kind="server_error", code="backend_timeout")


def _broken(backend: Backend, answer: Answer, error: Exception) -> Problem:
    message = f"{backend.name} broke off its answer: {str(error) or type(error).__name__}"
    return Problem(502 if not answer.status else 0, message, kind="server_error", code="backend_error")
