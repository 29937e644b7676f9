"""Listening: uvicorn, with limits to what a stranger may cost before he has said who he is."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import resource
import socket
from typing import TYPE_CHECKING, Final

import uvicorn
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from labctl.swap.asgi import Problem

if TYPE_CHECKING:
    from labctl.swap.app import App

GRACE: Final = 5
"""Seconds for requests that are being answered when the gateway is told to end."""
HEAD: Final = 64 << 10
"""Bytes that the first line and the headers of a request may have."""
HEAD_SECONDS: Final = 20.0
"""Seconds that they may take to come."""
LINGER: Final = 1.0
"""Seconds for which what a refused client still sends is read: closed at once, it might not get its answer."""
IDLE: Final = 75
"""Seconds for which an idle connection is kept: longer than by clients, who else find it closed under a request."""
FILES: Final = 65_536
"""Files that may be open. A client takes one and its answer another, and 1024 is what a process usually gets."""


def serve(app: App, bind: str, port: int) -> bool:
    """Serve until told to stop; return whether it could begin."""
    _many_files()
    server = _Server(
        uvicorn.Config(
            app,
            host=bind,
            port=port,
            http=_Protocol,
            ws="none",
            lifespan="on",  # a gateway that cannot open ends, instead of answering everybody 500
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_keep_alive=IDLE,
            timeout_graceful_shutdown=GRACE,
        )
    )
    gc.collect()
    gc.freeze()  # what is there now stays: it need not be looked through while somebody waits
    server.run()
    return server.started


def _many_files() -> None:
    """Ask for as many files as may be asked for."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class _Server(uvicorn.Server):
    """Lets requests end that are being answered; whoever waits for a server is told at once to come again."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.config.app.turn_away()  # type: ignore[union-attr]
        await super().shutdown(sockets)


class _Protocol(HttpToolsProtocol):
    """A request's head has to be short and to come soon. What is no HTTP is told so in OpenAI's shape."""

    _timer: asyncio.TimerHandle | None = None
    _heading, _refused, _size = True, False, 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._timer = self.loop.call_later(HEAD_SECONDS, self._late)

    def connection_lost(self, exc: Exception | None) -> None:
        self._said()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        super().data_received(data)
        if self._heading:
            self._size += len(data)
            if self._timer is None:
                self._timer = self.loop.call_later(HEAD_SECONDS, self._late)
            if self._size > HEAD:
                self._refuse(Problem(431, f"the headers have more than {HEAD >> 10} KiB", code="headers_too_large"))

    def on_message_begin(self) -> None:
        self._heading, self._size = True, 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._heading = False
        if self._timer is not None:
            self._said()
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        self._refuse(Problem(400, msg.rstrip(".")))

    def _said(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _late(self) -> None:
        self._timer = None
        cycle: RequestResponseCycle | None = self.cycle
        if self._heading and (cycle is None or cycle.response_complete):
            self.transport.close()

    def _refuse(self, problem: Problem) -> None:
        if self._refused or self.transport.is_closing():
            return
        body = problem.body()
        headers = [*problem.headers(), (b"content-length", b"%d" % len(body)), (b"connection", b"close")]
        lines = b"".join(b"%b: %b\r\n" % header for header in headers)
        self.transport.write(STATUS_LINE[problem.status] + lines + b"\r\n" + body)
        self._refused = True
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.loop.call_later(LINGER, self.transport.close)
