"""The few words of ASGI that the gateway speaks: a request's body, answers, errors in OpenAI's shape."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Header = tuple[bytes, bytes]


class Gone(Exception):  # noqa: N818 - nothing went wrong
    """The client has left."""


@dataclass(eq=False)
class Problem(Exception):  # noqa: N818 - an answer
    """A request that is answered with an error.

    Attributes:
        status: HTTP status.
        message: one sentence that says what and who.
        kind: OpenAI's ``type``; code: OpenAI's ``code``.
        retry_after: seconds, None to say nothing; allow: the methods that would do.
    """

    status: int
    message: str
    kind: str = "invalid_request_error"
    code: str | None = None
    param: str | None = None
    retry_after: float | None = None
    allow: str = ""

    def body(self) -> bytes:
        """Return OpenAI's JSON for it."""
        error = {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}
        return json.dumps({"error": error}).encode()

    def headers(self) -> list[Header]:
        """Return the headers that go with it."""
        found = [(b"content-type", b"application/json")]
        if self.retry_after is not None:
            found.append((b"retry-after", str(max(1, math.ceil(self.retry_after))).encode()))
        if self.allow:
            found.append((b"allow", self.allow.encode()))
        if self.status == 401:
            found.append((b"www-authenticate", b"Bearer"))
        return found


async def answer(send: Send, status: int, body: bytes, headers: Iterable[Header]) -> None:
    """Send a whole answer."""
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": body})


async def answer_json(send: Send, value: object, status: int = 200) -> None:
    """Send a value as JSON."""
    headers = [(b"content-type", b"application/json"), (b"cache-control", b"no-store")]
    await answer(send, status, json.dumps(value).encode(), headers)


def headers_of(scope: Scope) -> Mapping[bytes, bytes]:
    """Return the headers; of repeated ones the last."""
    return dict(scope["headers"])


async def chunk(receive: Receive) -> tuple[bytes, bool]:
    """Return the next piece of the body, and whether there is more. Gone when the client has left."""
    message = await receive()
    if message["type"] == "http.disconnect":
        raise Gone
    return message.get("body", b""), message.get("more_body", False)


async def body(receive: Receive, limit: int) -> bytes:
    """Return the whole body; Problem (413) beyond ``limit`` bytes."""
    parts, size, more = [], 0, True
    while more:
        piece, more = await chunk(receive)
        size += len(piece)
        if size > limit:
            raise too_large(limit)
        parts.append(piece)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def too_large(limit: int) -> Problem:
    """Return the answer to a body of more than ``limit`` bytes."""
    return Problem(413, f"the request has more than {limit >> 20} MiB", code="request_too_large")


class EndsWith:
    """A block that is given up, with Gone, when the client leaves. ``read``: once nobody else listens to it."""

    def __init__(self, receive: Receive, read: asyncio.Event | None = None) -> None:
        self._receive, self._read = receive, read
        self._over = self._left = False

    async def __aenter__(self) -> None:
        loop = asyncio.get_running_loop()
        self._task = asyncio.current_task(loop)
        self._watch = loop.create_task(self._leaves())

    async def _leaves(self) -> None:
        if self._read is not None:
            await self._read.wait()
        while (await self._receive())["type"] != "http.disconnect":
            pass
        if not self._over and self._task is not None:
            self._left = True
            self._task.cancel()

    async def __aexit__(self, *_: object) -> None:
        self._over = True
        if self._left and self._task is not None:
            self._task.uncancel()
            raise Gone
        self._watch.cancel()
