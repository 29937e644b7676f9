"""Forms with files (``multipart/form-data``, RFC 7578), read to their field ``model`` and not much further.

What was read up to there is kept, on disk when it is long; what follows is passed on as it arrives. So a form of any
length takes a fixed piece of memory, wherever its ``model`` stands.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import tempfile
from collections.abc import AsyncIterator, Mapping
from typing import Final

from labctl.swap.asgi import Gone, Problem, Receive, chunk, too_large

IN_MEMORY: Final = 1 << 20
"""Bytes of a form that are read and kept in memory in any case; more go to a file, as far as its model is not known."""
STALLED: Final = 60.0
"""Seconds that a client may send nothing while a server waits for the rest of its form."""
FOLDER: Final = "/var/tmp" if os.access("/var/tmp", os.W_OK) else None  # noqa: S108 - what is kept there has no name
"""Where forms are kept: not where the system's ``/tmp`` is itself memory, if there is a choice."""
_PIECE: Final = 1 << 16
_HEADERS: Final = 16 << 10
"""Bytes that the headers of one part may have."""
_NAME: Final = 256
"""Bytes that the name of a model may have."""
_BOUNDARY: Final = re.compile(rb';\s*boundary=(?:"([^"]{1,70})"|([^\s;"]{1,70}))', re.IGNORECASE)
_IS_MODEL: Final = re.compile(
    rb'^content-disposition:[ \t]*form-data\b(?=[^\r\n]*;[ \t]*name="?model"?[ \t]*(?:;|$))(?![^\r\n]*;[ \t]*filename)',
    re.IGNORECASE | re.MULTILINE,
)


def is_form(content_type: bytes) -> bool:
    """Whether a body of this type is a form with files."""
    return content_type[:19].lower() == b"multipart/form-data"


class Scanner:
    """Looks for the field ``model`` in the pieces of a form. ``found`` is (name, offset of its first byte) then."""

    def __init__(self, content_type: bytes) -> None:
        boundary = _BOUNDARY.search(content_type)
        if boundary is None:
            raise Problem(400, "the form's content type names no `boundary`", code="invalid_form")
        self._delimiter = b"\r\n--" + (boundary[1] or boundary[2])
        self._buffer, self._offset = b"\r\n", -2  # the first delimiter may stand at the very beginning
        self._next = self._to_delimiter
        self.found: tuple[bytes, int] | None = None
        self.ended = False

    def feed(self, piece: bytes) -> None:
        """Look at one more piece; Problem (400) for what is no form."""
        self._buffer += piece
        while self.found is None and not self.ended and self._next():
            pass

    def _drop(self, count: int) -> None:
        self._buffer, self._offset = self._buffer[count:], self._offset + count

    def _to_delimiter(self) -> bool:
        at = self._buffer.find(self._delimiter)
        if at < 0:
            self._drop(max(0, len(self._buffer) - len(self._delimiter) + 1))
            return False
        self._drop(at + len(self._delimiter))
        self._next = self._after_delimiter
        return True

    def _after_delimiter(self) -> bool:
        if len(self._buffer) < 2:
            return False
        self.ended = self._buffer.startswith(b"--")
        is_one = self._buffer.startswith((b"\r\n", b" ", b"\t"))  # else a line that only begins like it
        self._next = self._headers if is_one else self._to_delimiter
        return True

    def _headers(self) -> bool:
        end = self._buffer.find(b"\r\n\r\n")
        if end > _HEADERS or (end < 0 and len(self._buffer) > _HEADERS):
            raise Problem(400, "a part of the form has too long headers", code="invalid_form")
        if end < 0:
            return False
        wanted = _IS_MODEL.search(self._buffer[:end].replace(b"\r\n", b"\n"))
        self._drop(end + 4 if wanted else end + 2)  # the line break before the delimiter may be that of an empty part
        self._next = self._value if wanted else self._to_delimiter
        return True

    def _value(self) -> bool:
        end = self._buffer.find(self._delimiter)
        if end > _NAME or (end < 0 and len(self._buffer) > _NAME + len(self._delimiter)):
            raise Problem(400, "the form's field `model` is too long", param="model", code="invalid_form")
        if end >= 0:
            self.found = self._buffer[:end], self._offset
        return False


class Form:
    """A form whose model is known: what was read of it, and its sender.

    Attributes:
        model: the name that it asks for.
        ended: set when all of it was read: only then may anybody else listen to its sender.
        problem: why its sender's part broke off; a server that is blamed for that is innocent.
    """

    def __init__(self, content_type: bytes, receive: Receive, limit: int, length: int | None) -> None:
        self.model = ""
        self.ended = asyncio.Event()
        self.problem: Exception | None = None
        self._scanner, self._receive, self._limit, self._length = Scanner(content_type), receive, limit, length
        self._kept = tempfile.SpooledTemporaryFile(max_size=IN_MEMORY, dir=FOLDER)  # noqa: SIM115 - see close
        self._size, self._passed, self._at = 0, False, 0
        self._name = b""

    async def read(self) -> None:
        """Read on until the model is known; Problem (400, 413, 507), Gone.

        A short form is read to its end: then no server has to wait for it, and it is seen when its sender leaves.
        """
        while not self.ended.is_set() and (self._size < IN_MEMORY or self._scanner.found is None):
            piece = await self._piece()
            self._keep(piece)
            if self._scanner.found is None:
                self._scanner.feed(piece)
            if self._scanner.ended:
                break
        name, self._at = self._scanner.found or (b"", 0)
        self._name, self.model = name, name.decode(errors="replace")
        if not self.model:
            raise Problem(400, "the form has no field `model`", param="model", code="missing_model")

    def _keep(self, piece: bytes) -> None:
        try:
            self._kept.write(piece)
            self._kept.flush()  # what a full disk does not take is known now
        except OSError as error:
            message = f"the form cannot be kept ({error.strerror}); send its `model` before its files"
            raise Problem(507, message, kind="server_error", code="no_space") from error

    @property
    def whole(self) -> bool:
        """Whether it can be sent once more: nothing of it has passed without being kept."""
        return not self._passed

    def length(self, model: str) -> int | None:
        """Return its length when it names ``model`` instead; None when its sender has not said it."""
        return None if self._length is None else self._length + len(self._new(model)) - len(self._name)

    def _new(self, model: str) -> bytes:
        return model.encode() if model else self._name

    async def pieces(self, model: str) -> AsyncIterator[bytes]:
        """Give all of it, with ``model`` in the place of its own name; "" changes nothing."""
        self._kept.seek(0)
        for at in range(0, self._at, _PIECE):
            yield self._kept.read(min(_PIECE, self._at - at))
        yield self._new(model)
        self._kept.seek(self._at + len(self._name))
        while piece := self._kept.read(_PIECE):
            yield piece
        while not self.ended.is_set():
            self._passed = True
            try:
                piece = await asyncio.wait_for(self._piece(), STALLED)
            except TimeoutError:
                self.problem = Problem(408, f"nothing more of the form came within {STALLED:g} s", code="timeout")
                raise self.problem from None
            except (Problem, Gone) as problem:
                self.problem = problem
                raise
            yield piece

    async def _piece(self) -> bytes:
        piece, more = await chunk(self._receive)
        self._size += len(piece)
        if self._size > self._limit:
            raise too_large(self._limit)
        if not more:
            self.ended.set()
        return piece

    def close(self) -> None:
        """Forget what was kept."""
        with contextlib.suppress(OSError):  # of a disk that is full
            self._kept.close()


async def read_form(receive: Receive, headers: Mapping[bytes, bytes], limit: int) -> Form:
    """Read a form up to its field ``model``; Problem (400, 413) when it has none or is too long."""
    length = headers.get(b"content-length", b"")
    declared = int(length) if length.isdigit() else None
    if declared is not None and declared > limit:
        raise too_large(limit)
    form = Form(headers.get(b"content-type", b""), receive, limit, declared)
    try:
        await form.read()
    except BaseException:
        form.close()
        raise
    return form
