"""Passing a request on and its answer back, byte for byte, no faster than the client reads."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import aiohttp

from labctl.swap.asgi import Header, Problem, Send
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
        b"cookie",
        b"date",
        b"server",
    }
)
"""Headers that belong to one connection, or to the gateway itself: keys are not shown to servers."""
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
        answer = Answer()
        try:
            async with session.request(
                method,
                backend.url + path,
                data=data,
                headers=_forwarded(headers),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=backend.timeout),
                allow_redirects=False,
            ) as response:
                await _pass_back(response, send, answer)
        except aiohttp.ClientConnectorError as error:
            raise NotTaken(str(error)) from error
        except TimeoutError as error:
            raise _late(backend, answer) from error
        except (aiohttp.ClientError, OSError) as error:
            if not answer.status and asked.rest is None:
                raise NotTaken(str(error) or type(error).__name__) from error
            raise _broken(backend, answer, error) from error
        return answer


async def _pass_back(response: aiohttp.ClientResponse, send: Send, answer: Answer) -> None:
    headers = [(k.lower(), v) for k, v in response.raw_headers if k.lower() not in HOP]
    if response.content_length is not None:
        headers.append((b"content-length", str(response.content_length).encode()))
    answer.status, answer.begun = response.status, asyncio.get_running_loop().time()
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    async for piece in response.content.iter_any():
        answer.size += len(piece)
        answer.tail = (answer.tail + piece)[-TAIL:] if len(piece) < TAIL else piece[-TAIL:]
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


def _forwarded(headers: Iterable[Header]) -> list[tuple[str, str]]:
    return [(k.decode("latin-1"), v.decode("latin-1")) for k, v in headers if k not in HOP]


def _late(backend: Backend, answer: Answer) -> Problem:
    message = f"{backend.name} did not answer within {backend.timeout:g} s"
    return Problem(504 if not answer.status else 0, message, kind="server_error", code="backend_timeout")


def _broken(backend: Backend, answer: Answer, error: Exception) -> Problem:
    message = f"{backend.name} broke off its answer: {str(error) or type(error).__name__}"
    return Problem(502 if not answer.status else 0, message, kind="server_error", code="backend_error")
