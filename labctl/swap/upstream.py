"""Connections to servers: HTTP/1.1 on asyncio's transports, parsed by httptools, as uvicorn does on the other side.

A general client costs more per request than all the rest of the gateway. What is needed is little: send bytes that are
there already, take the answer piece by piece, stop reading while nobody takes it, and know whether a kept
connection was closed before it was used.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

import httptools

Header = tuple[bytes, bytes]
CONNECT: Final = 5.0
"""Seconds for a connection to come about."""
READ_AHEAD: Final = 128 << 10
"""Bytes of an answer that are taken before somebody wants them; beyond, the server has to wait."""
KEPT: Final = 55.0
"""Seconds for which an idle connection is used again where the server does not say how long it waits."""
_PATIENCE: Final = re.compile(rb"timeout=(\d+)")
_EMPTY: Final = frozenset({204, 304})


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server is reached; ``prefix`` comes before every path, ``name`` is its Host header."""

    host: str
    port: int
    name: bytes
    prefix: bytes = b""
    secure: bool = False


def address(url: str) -> Address:
    """Return the address that a URL names."""
    parts = urlsplit(url)
    secure = parts.scheme == "https"
    port = parts.port or (443 if secure else 80)
    return Address(parts.hostname or "", port, parts.netloc.encode(), parts.path.rstrip("/").encode(), secure)


class Connection(asyncio.Protocol):
    """One connection and the exchange on it: ``send``, ``head``, ``piece`` until it is empty, ``release``.

    Attributes:
        status: of the answer, 0 before it is known; headers: names in lower case.
        complete: the whole answer has come. Pieces may be left to be taken.
        reused: it has carried another exchange before, so the server may have closed it meanwhile.
    """

    def __init__(self, pool: Connections, to: Address) -> None:
        self._loop = asyncio.get_running_loop()
        self._pool, self.to = pool, to
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport = None  # type: ignore[assignment]  # there is one before anybody has it
        self._busy = self._keep = self._paused = self._to_end = False
        self._pieces: list[bytes] = []
        self._held = 0
        self._waiter: asyncio.Future[None] | None = None
        self._writable: asyncio.Future[None] | None = None
        self._upload: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timeout = self._heard = 0.0
        self._patience = KEPT
        self.until = 0.0
        self.error: BaseException | None = None
        self.status = 0
        self.headers: list[Header] = []
        self.complete = self.reused = False

    # --- what an exchange does ----------------------------------------------------------------------------------------

    def send(self, head: bytes, body: bytes | AsyncIterator[bytes], timeout: float, *, chunked: bool = False) -> None:
        """Send a request; ``head`` ends with the empty line and says how the body is framed.

        The exchange fails with TimeoutError when the server is silent for ``timeout`` seconds, and with whatever the
        giver of a body in pieces raises.
        """
        self._busy, self.complete, self.status, self.headers = True, False, 0, []
        self._timeout, self._heard = timeout, self._loop.time()
        self._timer = self._loop.call_later(timeout, self._look)
        if isinstance(body, bytes):
            self._transport.write(head + body if len(body) < READ_AHEAD else head)
            if len(body) >= READ_AHEAD:
                self._transport.write(body)
        else:
            self._transport.write(head)
            self._upload = self._loop.create_task(self._send_pieces(body, chunked=chunked))

    async def head(self) -> None:
        """Wait until status and headers are there."""
        while not self.status:
            await self._more()

    async def piece(self) -> bytes:
        """Return what has come of the body, waiting for some; b"" at its end."""
        while not self._pieces:
            if self.complete:
                return b""
            await self._more()
        found = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        self._pieces.clear()
        self._held = 0
        if self._paused:
            self._paused, self._heard = False, self._loop.time()
            self._transport.resume_reading()
        return found

    def release(self) -> None:
        """Let go of it: kept when the exchange is over and the server keeps it too, else cut off."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        uploaded = self._upload is None or self._upload.done()
        if self._upload is not None:
            self._upload.cancel()
            self._upload = None
        self._busy = False
        self._pieces.clear()
        if self.complete and self._keep and uploaded and self.error is None and not self._transport.is_closing():
            self.reused, self.until = True, self._loop.time() + self._patience
            self._pool.keep(self)
        else:
            self._transport.abort()

    @property
    def usable(self) -> bool:
        """Whether a kept connection may be used again."""
        return not self._transport.is_closing() and self._loop.time() < self.until

    def close(self) -> None:
        """Close it."""
        self._transport.abort()

    async def _more(self) -> None:
        if self.error is not None:
            raise self.error
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _fail(self, error: BaseException) -> None:
        if self.error is None:
            self.error = error
        self._wake()

    def _look(self) -> None:
        """The time is over, unless something was heard meanwhile or it is the client who does not read."""
        left = self._timeout - (self._loop.time() - self._heard)
        if self._paused:
            left = self._timeout
        if left <= 0:
            self._timer = None
            self._fail(TimeoutError())
        else:
            self._timer = self._loop.call_later(left, self._look)

    async def _send_pieces(self, pieces: AsyncIterator[bytes], *, chunked: bool) -> None:
        try:
            async for piece in pieces:
                self._heard = self._loop.time()
                if piece:
                    framed = (b"%x\r\n" % len(piece), piece, b"\r\n") if chunked else (piece,)
                    self._transport.writelines(framed)
                if self._writable is not None:
                    await self._writable
            if chunked:
                self._transport.write(b"0\r\n\r\n")
        except Exception as error:  # of the client, who has left or sends too much: the exchange ends with it
            self._fail(error)

    # --- what the transport tells -------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """There is a connection."""
        self._transport = transport  # type: ignore[assignment]  # of a stream

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone. An answer without a length ends so."""
        if not self._busy:
            self._pool.forget(self)
        if self._to_end and self.status and exc is None:
            self.complete = True
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)
        self._fail(exc or ConnectionResetError("it closed the connection"))

    def data_received(self, data: bytes) -> None:
        """Some of an answer."""
        self._heard = self._loop.time()
        if not self._busy:
            self._transport.abort()
            return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            if not self.complete:
                self._fail(ConnectionError(f"what it answers is not HTTP: {error}"))
            self._keep = False
        if self._held > READ_AHEAD and not self._paused:
            self._paused = True
            self._transport.pause_reading()
        self._wake()

    def pause_writing(self) -> None:
        """The server does not read as fast as the client sends."""
        self._writable = self._loop.create_future()

    def resume_writing(self) -> None:
        """It goes on."""
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)
        self._writable = None

    # --- what the parser tells ----------------------------------------------------------------------------------------

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header."""
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """Status and headers are there; those of an interim answer are forgotten."""
        status = self._parser.get_status_code()
        if status < 200:
            self.headers = []
            return
        names = dict(self.headers)
        sized = b"content-length" in names or b"transfer-encoding" in names or status in _EMPTY
        self._to_end = not sized
        patience = _PATIENCE.search(names.get(b"keep-alive", b""))
        self._patience = max(0.0, int(patience[1]) - 1.0) if patience else KEPT
        self.status = status

    def on_body(self, body: bytes) -> None:
        """Some of the body."""
        self._pieces.append(body)
        self._held += len(body)

    def on_message_complete(self) -> None:
        """The end of an answer."""
        if self.status:
            self.complete, self._keep = True, self._parser.should_keep_alive()


class Connections:
    """Connections that are kept for the next request, the one used last first."""

    def __init__(self) -> None:
        self._idle: dict[Address, list[Connection]] = {}
        self._secure: ssl.SSLContext | None = None

    async def take(self, to: Address, *, fresh: bool = False) -> Connection:
        """Return a connection that was kept, or a new one; OSError (TimeoutError) when none comes about."""
        idle = self._idle.get(to)
        while idle and not fresh:
            found = idle.pop()
            if found.usable:
                return found
            found.close()
        made: Callable[[], Connection] = lambda: Connection(self, to)  # noqa: E731
        loop, secure = asyncio.get_running_loop(), self._tls(to)
        async with asyncio.timeout(CONNECT):
            _, connection = await loop.create_connection(made, to.host, to.port, ssl=secure)
        return connection

    def keep(self, connection: Connection) -> None:
        """Keep one for later."""
        self._idle.setdefault(connection.to, []).append(connection)

    def forget(self, connection: Connection) -> None:
        """One was closed while nobody used it."""
        idle = self._idle.get(connection.to, [])
        if connection in idle:
            idle.remove(connection)

    def close(self) -> None:
        """Close those that nobody uses."""
        for idle in self._idle.values():
            for connection in (*idle,):
                connection.close()
        self._idle.clear()

    def _tls(self, to: Address) -> Any:
        if to.secure and self._secure is None:
            self._secure = ssl.create_default_context()
        return self._secure if to.secure else None
