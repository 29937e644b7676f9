"""A forward-moving window over a file that may be far away: every byte is fetched at most once, in growing chunks."""

from __future__ import annotations

import struct
from collections.abc import Callable

from labctl.vram.metadata.errors import MetadataError

ReadRange = Callable[[int, int], bytes]
"""``read(offset, length)``: the bytes at ``offset``; fewer than ``length`` only at the end of the file."""

FIRST_CHUNK = 64 * 1024
LARGEST_CHUNK = 2 * 1024 * 1024
HEADER_LIMIT = 64 * 1024 * 1024
"""Bytes read of one file before it is given up: the largest vocabularies known (gpt-oss: 200k tokens, 446k merges)
make headers of about 13 MB."""

FARTHEST = 1 << 62
"""No file reaches this offset."""

_U64 = struct.Struct("<Q")


class Window:
    """Takes and skips bytes from offset 0 on.

    Args:
        read: the file.
        size: its length in bytes, when known.
        limit: bytes that may be fetched in all.

    Raises (from every method): ``MetadataError`` when the file ends early or the limit is reached.
    """

    def __init__(self, read: ReadRange, size: int | None, *, limit: int = HEADER_LIMIT) -> None:
        self._read = read
        self._size = size
        self._limit = limit
        self._chunk = FIRST_CHUNK
        self._buffer = b""
        self._start = 0
        self.offset = 0
        self.fetched = 0

    def take(self, length: int, what: str) -> bytes:
        """Return the next ``length`` bytes; ``what`` names them in an error."""
        self._require(length, what)
        begin = self.offset - self._start
        self.offset += length
        return self._buffer[begin : begin + length]

    def skip(self, length: int, what: str) -> None:
        """Move on by ``length`` bytes, which are fetched only if they happen to be in the buffer already."""
        self._check_end(length, what)
        self.offset += length

    def skip_strings(self, count: int, what: str) -> None:
        """Move over ``count`` strings, each a 64-bit length and that many bytes."""
        self._check_end(8 * count, what)
        while count:
            passed = self._skip_buffered(count)
            count -= passed
            if count and not passed:
                (length,) = _U64.unpack(self.take(8, what))
                self.skip(length, what)
                count -= 1

    def _skip_buffered(self, count: int) -> int:
        """Skip whole strings inside the buffer, at most ``count``; return how many."""
        buffer, unpack = self._buffer, _U64.unpack_from
        position, last, passed = self.offset - self._start, len(self._buffer) - 8, 0
        while passed < count and 0 <= position <= last:
            after = position + 8 + unpack(buffer, position)[0]
            if after > last + 8:
                break
            position = after
            passed += 1
        if passed:
            self.offset = self._start + position
        return passed

    def _require(self, length: int, what: str) -> None:
        """Have the next ``length`` bytes in the buffer."""
        self._check_end(length, what)
        if self.fetched + length > self._limit:
            raise MetadataError(
                summary=f"the header goes on after {self._limit} bytes, in {what}: this is no sane model file"
            )
        while self._start + len(self._buffer) - self.offset < length:
            self._fetch(length, what)

    def _fetch(self, length: int, what: str) -> None:
        begin = self.offset - self._start
        kept = self._buffer[begin:] if begin <= len(self._buffer) else b""
        wanted = min(max(length - len(kept), self._chunk), self._limit - self.fetched)
        if self._size is not None:
            wanted = min(wanted, self._size - self.offset - len(kept))
        fresh = self._read(self.offset + len(kept), wanted)[:wanted] if wanted > 0 else b""
        if not fresh:
            raise MetadataError(summary=f"the file ends in {what}, at byte {self.offset + len(kept)}", hint=TRUNCATED)
        self._chunk = min(self._chunk * 2, LARGEST_CHUNK)
        self.fetched += len(fresh)
        self._buffer, self._start = kept + fresh, self.offset

    def _check_end(self, length: int, what: str) -> None:
        if self.offset + length > FARTHEST:
            raise MetadataError(summary=f"{what} claims to be {length} bytes long")
        if self._size is not None and self.offset + length > self._size:
            raise MetadataError(
                summary=f"{what} would end at byte {self.offset + length}, but the file has {self._size}",
                hint=TRUNCATED,
            )


TRUNCATED = "check that the download is complete"
