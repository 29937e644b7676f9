"""The client: as little as can be, so that what is measured is on the other side."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar, cast
from urllib.parse import urlsplit

import httptools
import uvloop

T = TypeVar("T")
BODY: Final = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 8}


@dataclass
class Taken:
    """What one way took.

    Attributes:
        each: milliseconds of every request; first: until the body began.
        seconds: all of them together.
    """

    each: list[float] = field(default_factory=list)
    first: list[float] = field(default_factory=list)
    seconds: float = 0.0


class Asker(asyncio.Protocol):
    """One client with one kept connection, opened anew when it was closed."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "", parts.port or 80
        self._transport: asyncio.Transport | None = None
        self._parser: Any = None
        self._ended: asyncio.Future[bool] | None = None
        self._status, self._first = 0, 0.0

    async def ask(self, request: bytes, into: Taken | None = None) -> int:
        """Send a request and read its answer; return its status."""
        begun = time.perf_counter()
        while not await self._once(request):
            self.close()  # a server may close a kept connection at the moment it is used
        if into is not None:
            into.each.append((time.perf_counter() - begun) * 1000)
            into.first.append((self._first - begun) * 1000)
        return self._status

    async def _once(self, request: bytes) -> bool:
        loop = asyncio.get_running_loop()
        if self._transport is None or self._transport.is_closing():
            await loop.create_connection(lambda: self, self._host, self._port)
        assert self._transport is not None
        self._ended, self._first = loop.create_future(), 0.0
        self._transport.write(request)
        return await self._ended

    def close(self) -> None:
        """Close the connection."""
        if self._transport is not None:
            self._transport.abort()
            self._transport = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """There is a connection."""
        self._transport, self._parser = cast("asyncio.Transport", transport), httptools.HttpResponseParser(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the protocol's signature
        """It is gone."""
        self._end(whole=False)

    def data_received(self, data: bytes) -> None:
        """Some of an answer."""
        self._parser.feed_data(data)

    def on_body(self, body: bytes) -> None:  # noqa: ARG002 - the parser's signature
        """Some of its body."""
        self._first = self._first or time.perf_counter()

    def on_message_complete(self) -> None:
        """The end of it."""
        self._status = self._parser.get_status_code()
        self._end(whole=True)

    def _end(self, *, whole: bool) -> None:
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(whole)


def request(url: str, model: str, *, stream: bool = False) -> bytes:
    """Return a chat request, as bytes."""
    body = json.dumps({**BODY, "model": model, **({"stream": True} if stream else {})}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: {urlsplit(url).netloc}\r\ncontent-type: application/json\r\n"
    return f"{head}accept: */*\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body


async def load(url: str, model: str, clients: int, seconds: float) -> Taken:
    """Ask again and again with so many clients at once."""
    taken, asked = Taken(), request(url, model)
    askers = [Asker(url) for _ in range(clients)]
    until = time.perf_counter() + seconds

    async def one(asker: Asker) -> None:
        while time.perf_counter() < until:
            _good(await asker.ask(asked, taken), url)

    begun = time.perf_counter()
    try:
        await asyncio.gather(*(one(asker) for asker in askers))
    finally:
        for asker in askers:
            asker.close()
    taken.seconds = time.perf_counter() - begun
    return taken


async def streams(url: str, model: str, times: int) -> Taken:
    """Ask for streams, one after the other, each over a new connection, as clients do."""
    taken, asked = Taken(), request(url, model, stream=True)
    for _ in range(times):
        asker = Asker(url)
        _good(await asker.ask(asked, taken), url)
        asker.close()
    return taken


async def at_once(url: str, model: str, clients: int) -> list[int]:
    """Ask with so many clients at the same moment; return their statuses."""
    askers = [Asker(url) for _ in range(clients)]
    try:
        return list(await asyncio.gather(*(asker.ask(request(url, model)) for asker in askers)))
    finally:
        for asker in askers:
            asker.close()


async def in_turn(url: str, models: list[str], rounds: int, clients: int) -> None:
    """Have clients ask for models in turn, each beginning with another one."""
    asked = [request(url, model) for model in models]

    async def one(first: int) -> None:
        asker = Asker(url)
        for i in range(rounds):
            _good(await asker.ask(asked[(first + i) % len(asked)]), url)
        asker.close()

    await asyncio.gather(*(one(i) for i in range(clients)))


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a client to its end, on the fast loop that servers run on too."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)


def _good(status: int, url: str) -> None:
    if status != 200:
        message = f"{url} answered {status}"
        raise RuntimeError(message)
