"""``python -m benchmarks.gateway.bare --to URL --port N``: a pass-through on uvicorn and aiohttp, and nothing else.

What any gateway on this stack costs at least, written as anybody would write it. It is measured in the same run, so
that figures of different machines can be compared.
"""

from __future__ import annotations

import argparse
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import aiohttp
import uvicorn

Message = MutableMapping[str, Any]
_KEPT = frozenset({b"content-type", b"content-length"})


class Bare:
    """An ASGI application that passes every request on to one server."""

    def __init__(self, to: str) -> None:
        self._to = to
        self._session: aiohttp.ClientSession | None = None

    async def __call__(
        self, scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
    ) -> None:
        """ASGI's entry."""
        if self._session is None:
            self._session = aiohttp.ClientSession(auto_decompress=False, connector=aiohttp.TCPConnector(limit=0))
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        for last in (False, True):  # llama.cpp closes a kept connection now and then, at the moment it is used
            try:
                await self._pass(self._session, scope, body, send)
            except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError):
                if last:
                    raise
            else:
                return

    async def _pass(
        self, session: aiohttp.ClientSession, scope: Message, body: bytes, send: Callable[[Message], Awaitable[None]]
    ) -> None:
        kind = {"content-type": "application/json"}
        async with session.request(scope["method"], self._to + scope["path"], data=body, headers=kind) as response:
            headers = [(k.lower(), v) for k, v in response.raw_headers if k.lower() in _KEPT]
            await send({"type": "http.response.start", "status": response.status, "headers": headers})
            async for piece in response.content.iter_any():
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body", "body": b""})


def main() -> None:
    """Serve until told to stop."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gateway.bare", description=__doc__)
    parser.add_argument("--to", required=True)
    parser.add_argument("--port", type=int, required=True)
    chosen = parser.parse_args()
    uvicorn.run(Bare(chosen.to), port=chosen.port, log_level="warning", access_log=False, lifespan="off")


if __name__ == "__main__":
    main()
