"""Passing a request on and its answer back, byte for byte, no faster than the client reads."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from typing import Final

import aiohttp

from labctl.swap.asgi import Gone, Header, Problem, Send
from labctl.swap.asked import Asked
from labctl.swap.config import Backend

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
NOT_BACK: Final = HOP | {
    b"access-control-allow-credentials",
    b"access-control-allow-headers",
    b"access-control-allow-methods",
    b"access-control-allow-origin",
    b"access-control-expose-headers",
    b"x-request-id",
}
"""Headers of a server's answer that are the gateway's to say: llama.cpp lets every web page read it."""
STALLED: Final = 60.0
TAIL: Final = 4096
"""Bytes at an answer's end in which the number of tokens is looked for."""
_TOKENS: Final = re.compile(rb'"(prompt|completion)_tokens"\s*:\s*(\d+)')


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
    watch: asyncio.TimerHandle | None = None

    def tokens(self) -> dict[str, int]:
        """Return ``prompt`` and ``completion`` tokens where the server said so."""
        return {kind.decode(): int(count) for kind, count in _TOKENS.findall(self.tail)}


class Forwarder:
    """Sends requests to servers over kept connections, and once more over a fresh one when a kept one was closed.

    A server may close a kept connection at the very moment at which a request is sent on it (llama.cpp does after each
    stream): that says nothing about the server.
    """

    def __init__(self, kept: aiohttp.ClientSession, fresh: aiohttp.ClientSession) -> None:
        self._kept, self._fresh = kept, fresh

    async def forward(
        self, method: str, path: str, headers: Iterable[Header], asked: Asked, backend: Backend, send: Send
    ) -> Answer:
        """Pass one request on. NotTaken before the answer began; Problem (502, 504) names the server at fault."""
        if asked.rest is None:
            with contextlib.suppress(NotTaken):
                return await self._once(self._kept, method, path, headers, asked, backend, send)
        return await self._once(self._fresh, method, path, headers, asked, backend, send)

    async def _once(
        self,
        session: aiohttp.ClientSession,
        method: str,
        path: str,
        headers: Iterable[Header],
        asked: Asked,
        backend: Backend,
        send: Send,
    ) -> Answer:
        data = asked.payload(backend.model)
        answer = Answer(headers=[h for h in headers if h[0] == b"x-request-id"])
        try:
            async with (
                session.request(
                    method,
                    backend.url + path,
                    data=data,
                    headers=_forwarded(headers, asked, backend),
                    timeout=aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=backend.timeout),
                    allow_redirects=False,
                ) as response,
                _no_slower(answer),
            ):
                await _pass_back(response, send, answer)
        except aiohttp.ClientConnectorError as error:
            raise NotTaken(str(error)) from error
        except TimeoutError as error:
            raise await _broken_off(_late(backend, answer), answer, send) from error
        except (aiohttp.ClientError, OSError) as error:
            if asked.rest is not None and asked.rest.problem is not None:
                raise asked.rest.problem from error
            if not answer.status and asked.repeatable:
                raise NotTaken(str(error) or type(error).__name__) from error
            raise await _broken_off(_broken(backend, answer, error), answer, send) from error
        return answer


async def _pass_back(response: aiohttp.ClientResponse, send: Send, answer: Answer) -> None:
    headers = [(k.lower(), v) for k, v in response.raw_headers if k.lower() not in NOT_BACK] + answer.headers
    if response.content_length is not None:
        headers.append((b"content-length", str(response.content_length).encode()))
    answer.status, answer.begun = response.status, asyncio.get_running_loop().time()
    answer.events = response.content_type == "text/event-stream"
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    async for piece in response.content.iter_any():
        answer.size += len(piece)
        answer.tail = (answer.tail + piece)[-TAIL:] if len(piece) < TAIL else piece[-TAIL:]
        answer.sending = True
        await send({"type": "http.response.body", "body": piece, "more_body": True})
        answer.sending = False
    await send({"type": "http.response.body", "body": b""})


@contextlib.asynccontextmanager
async def _no_slower(answer: Answer) -> AsyncIterator[None]:
    """Treat a client that takes nothing for ``STALLED`` seconds as one that has left: others wait for its place."""
    limit = asyncio.timeout(None)
    answer.watch = asyncio.get_running_loop().call_later(STALLED, _look, answer, limit, -1)
    try:
        async with limit:
            yield
    except TimeoutError:
        if limit.expired():
            raise Gone from None
        raise
    finally:
        if answer.watch is not None:
            answer.watch.cancel()


def _look(answer: Answer, limit: asyncio.Timeout, size: int) -> None:
    clock = asyncio.get_running_loop()
    if answer.sending and answer.size == size:
        limit.reschedule(clock.time())
    else:
        answer.watch = clock.call_later(STALLED, _look, answer, limit, answer.size)


async def _broken_off(problem: Problem, answer: Answer, send: Send) -> Problem:
    """Return the problem; a stream of events that had begun is ended with one that says it."""
    if answer.events and (not answer.tail or answer.tail.endswith((b"\n\n", b"\r\n\r\n"))):
        await send({"type": "http.response.body", "body": b"data: " + problem.body() + b"\n\n"})
    return problem


def _forwarded(headers: Iterable[Header], asked: Asked, backend: Backend) -> list[tuple[str, str]]:
    found = [(k.decode("latin-1"), v.decode("latin-1")) for k, v in headers if k not in HOP]
    if asked.rest is not None and (length := asked.rest.length(backend.model)) is not None:
        found.append(("content-length", str(length)))
    return found


def _late(backend: Backend, answer: Answer) -> Problem:
    message = f"{backend.name} did not answer within {backend.timeout:g} s"
    return Problem(504 if not answer.status else 0, message, kind="server_error", code="backend_timeout")


def _broken(backend: Backend, answer: Answer, error: Exception) -> Problem:
    message = f"{backend.name} broke off its answer: {str(error) or type(error).__name__}"
    return Problem(502 if not answer.status else 0, message, kind="server_error", code="backend_error")
