"""What a request asks for: its model's name and its body, read no further than needed.

A JSON body is read whole (it has to be understood). A form with files is read up to its ``model`` field; what follows
is passed on as it arrives, and what was read before it is kept on disk when it is long.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Final

from labctl.swap.asgi import Problem, Receive, body, chunk, too_large

IN_MEMORY: Final = 1 << 20
"""Bytes of a form that are kept in memory until its model is known."""
_MODEL_FIELD: Final = re.compile(
    rb'content-disposition:[^\r\n]*\bname="?model"?[^\r\n]*\r\n(?:[^\r\n]+\r\n)*\r\n([^\r\n]{1,200})\r\n', re.IGNORECASE
)
_OVERLAP: Final = 1024


@dataclass(slots=True)
class Asked:
    """A request as far as it was read.

    Attributes:
        model: the public name that it asks for.
        stream: whether it wants the answer piece by piece.
        whole: the body, when it was read whole.
        value: the same as a value, for JSON.
        rest: the pieces of the body, when it is passed on as it comes.
    """

    model: str
    stream: bool = False
    whole: bytes | None = None
    value: dict[str, Any] | None = None
    rest: AsyncIterator[bytes] | None = None

    def payload(self, model: str) -> bytes | AsyncIterator[bytes]:
        """Return what a server is sent that calls the model ``model``: the very bytes unless the name differs."""
        if self.rest is not None:
            return self.rest
        if self.value is not None and model and model != self.model:
            return json.dumps({**self.value, "model": model}, ensure_ascii=False).encode()
        return self.whole or b""


async def read(receive: Receive, content_type: bytes, limit: int) -> Asked:
    """Read a request; Problem (400, 413) for one that names no model or is too long."""
    if content_type.lower().startswith(b"multipart/form-data"):
        return await _form(receive, limit)
    whole = await body(receive, limit)
    try:
        value = json.loads(whole)
    except ValueError as error:
        raise Problem(400, f"the body is not JSON: {error}") from error
    model = value.get("model") if isinstance(value, dict) else None
    if not isinstance(model, str) or not model:
        raise Problem(400, "the body names no `model`", param="model", code="missing_model")
    return Asked(model, bool(value.get("stream")), whole, value)


async def _form(receive: Receive, limit: int) -> Asked:
    kept = tempfile.SpooledTemporaryFile(max_size=IN_MEMORY)  # noqa: SIM115 - closed when it was passed on
    window, size, more = b"", 0, True
    while more:
        piece, more = await chunk(receive)
        size += len(piece)
        if size > limit:
            kept.close()
            raise too_large(limit)
        kept.write(piece)
        window = window[-_OVERLAP:] + piece
        found = _MODEL_FIELD.search(window)
        if found:
            name = found[1].decode(errors="replace").strip()
            return Asked(name, rest=_pieces(kept, receive, size, limit, more=more))
    kept.close()
    raise Problem(400, "the form has no field `model`", param="model", code="missing_model")


async def _pieces(kept: Any, receive: Receive, size: int, limit: int, *, more: bool) -> AsyncIterator[bytes]:
    try:
        kept.seek(0)
        while piece := kept.read(1 << 16):
            yield piece
    finally:
        kept.close()
    while more:
        piece, more = await chunk(receive)
        size += len(piece)
        if size > limit:
            raise too_large(limit)
        yield piece
