"""Messages between labctl and its agent: a header, JSON values, bytes. Many calls share one pair of pipes.

A frame is ``kind, call number, length of the JSON, length of the bytes`` and these two. Bytes above ``PART`` go ahead
of their frame in frames of their own, so that a large file does not hold up the other calls.
"""

from __future__ import annotations

import json
import struct
import threading

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import IO, Any

    Frame = tuple[int, int, dict[str, Any], bytes]
    """Kind, number of the call, JSON values, bytes."""

MAGIC = b"\nlabctl-agent 1\n"
"""Comes before the agent's first frame: what a login script prints before it is skipped."""
HEADER = struct.Struct(">BIII")
PART = 256 << 10
"""Bytes in one frame at most."""
LIMIT = 64 << 20
"""Bytes of JSON, and of one frame, that are believed to be meant."""

CALL, CANCEL, HELLO, EVENT, RESULT, OS_ERROR, REFUSAL, CANCELLED, BUG, PIECE = range(1, 11)


class ProtocolError(Exception):
    """What came is no frame."""


class Writer:
    """Writes frames, from any thread."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._lock = threading.Lock()

    def send(self, kind: int, number: int, values: dict[str, Any], body: bytes = b"") -> None:
        """Send a message. OSError (BrokenPipeError) when nobody reads any more."""
        start = 0
        while len(body) - start > PART:
            self._frame(PIECE, number, b"", body[start : start + PART])
            start += PART
        self._frame(kind, number, json.dumps(values).encode(), body[start:] if start else body)

    def _frame(self, kind: int, number: int, values: bytes, body: bytes) -> None:
        with self._lock:
            self._stream.write(HEADER.pack(kind, number, len(values), len(body)) + values + body)
            self._stream.flush()


class Reader:
    """Reads frames, from one thread, and puts the pieces of large ones together."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._pieces: dict[int, list[bytes]] = {}

    def receive(self) -> Frame | None:
        """Return the next message, None at the end. ProtocolError for anything else than a frame."""
        while True:
            header = self._exactly(HEADER.size)
            if header is None:
                return None
            kind, number, length, size = HEADER.unpack(header)
            if length > LIMIT or size > LIMIT or not CALL <= kind <= PIECE:
                raise ProtocolError(header)
            content = self._exactly(length + size)
            if content is None:
                return None
            if kind == PIECE:
                self._pieces.setdefault(number, []).append(content)
                continue
            body = b"".join([*self._pieces.pop(number, ()), content[length:]])
            return kind, number, json.loads(content[:length]), body

    def _exactly(self, size: int) -> bytes | None:
        content = self._stream.read(size)
        return content if len(content) == size else None
