"""Connections to servers, against a stand-in that sends exactly the bytes that a test has written."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

import pytest

from labctl.swap.upstream import Connection, Connections, address

OK = b"HTTP/1.1 200 OK\r\n"
HEAD = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n"


class Script:
    """Answers the n-th request on each connection with the n-th text, and closes after the last; ``opened`` counts."""

    def __init__(self, answers: Sequence[bytes], *, close: bool = True) -> None:
        self.answers, self.close, self.opened = answers, close, 0
        self.url = ""

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.opened += 1
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            for answer in self.answers:
                await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(2)
                for piece in answer.split(b"|"):
                    writer.write(piece)
                    await writer.drain()
                    await asyncio.sleep(0)
            if not self.close:
                await reader.read()
        writer.close()


@contextlib.asynccontextmanager
async def serving(script: Script) -> AsyncIterator[Connections]:
    """Run it, and give connections."""
    server = await asyncio.start_server(script.talk, "127.0.0.1")
    script.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    connections = Connections()
    try:
        yield connections
    finally:
        connections.close()
        server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.wait_for(asyncio.gather(*others), 10)
        await asyncio.sleep(0.01)  # transports are closed in a later turn


async def ask(connections: Connections, script: Script, timeout: float = 5.0) -> tuple[int, bytes, Connection]:
    """Return status and body of one exchange, and its connection."""
    connection = await connections.take(address(script.url))
    try:
        connection.send(HEAD, b"{}", timeout)
        await connection.head()
        body = b""
        while piece := await connection.piece():
            body += piece
        return connection.status, body, connection
    finally:
        connection.release()


def play(script: Script, work: Callable[[Connections], Awaitable[None]]) -> None:
    """Run a test's part against a script."""

    async def run() -> None:
        async with serving(script) as connections:
            await work(connections)

    asyncio.run(run())


@pytest.mark.parametrize(
    ("answer", "status", "body"),
    [
        (OK + b"Content-Length: 5\r\n\r\nhe|llo", 200, b"hello"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n|2\r\nde\r\n0\r\n|\r\n", 200, b"abcde"),
        (OK + b"\r\nuntil |the end", 200, b"until the end"),
        (b"HTTP/1.1 100 Continue\r\n\r\n|HTTP/1.1 201 Created\r\nContent-Length: 1\r\n\r\nx", 201, b"x"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b""),
    ],
    ids=["sized", "chunked", "until it closes", "after an interim answer", "empty"],
)
def test_an_answer_is_read_as_http_allows(answer: bytes, status: int, body: bytes) -> None:
    """However its end is told."""
    script = Script([answer])

    async def work(connections: Connections) -> None:
        assert (await ask(connections, script))[:2] == (status, body)

    play(script, work)


@pytest.mark.parametrize(
    ("headers", "opened"),
    [(b"", 1), (b"Connection: close\r\n", 2), (b"Keep-Alive: timeout=1, max=100\r\n", 2)],
    ids=["kept", "not when the server closes it", "not when it is about to close it"],
)
def test_a_connection_is_used_again(headers: bytes, opened: int) -> None:
    """As long as the server keeps it, and not in its last second."""
    answer = OK + headers + b"Content-Length: 1\r\n\r\nx"
    script = Script([answer, answer], close=False)

    async def work(connections: Connections) -> None:
        for _ in range(2):
            assert (await ask(connections, script))[:2] == (200, b"x")
        assert script.opened == opened

    play(script, work)


@pytest.mark.parametrize(
    ("answer", "close", "error"),
    [
        (OK + b"Content-Length: 5\r\n\r\nhe", True, ConnectionError),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", True, ConnectionError),
        (b"", True, ConnectionError),
        (b"SSH-2.0-OpenSSH_9.6\r\n", False, ConnectionError),
        (b"", False, TimeoutError),
        (OK + b"Content-Length: 5\r\n\r\nhe", False, TimeoutError),
    ],
    ids=["cut short", "chunks without an end", "nothing", "not HTTP", "silence", "silence in the middle"],
)
def test_what_breaks_off_is_never_taken_for_whole(answer: bytes, close: bool, error: type[OSError]) -> None:  # noqa: FBT001
    """Nor is its connection used again."""
    script = Script([answer], close=close)

    async def work(connections: Connections) -> None:
        with pytest.raises(error):
            await ask(connections, script, timeout=0.2 if error is TimeoutError else 5.0)
        assert not any(connections._idle.values())

    play(script, work)


def test_a_kept_connection_that_was_closed_is_forgotten() -> None:
    """The next request opens another one."""
    script = Script([OK + b"Content-Length: 1\r\n\r\nx"])

    async def work(connections: Connections) -> None:
        await ask(connections, script)
        for _ in range(200):
            if not any(connections._idle.values()):
                break
            await asyncio.sleep(0.01)
        assert not any(connections._idle.values())
        assert (await ask(connections, script))[1] == b"x"
        assert script.opened == 2

    play(script, work)
