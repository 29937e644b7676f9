"""What a request asks for: its model's name and its body, read no further than needed.

A JSON body is read whole (it has to be understood). A form with files is read up to its ``model`` field (``form``).
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

from labctl.swap.asgi import Problem, Receive, body
from labctl.swap.form import Form, is_form, read_form


@dataclass(slots=True)
class Asked:
    """A request as far as it was read.

    Attributes:
        model: the public name that it asks for.
        stream: whether it wants the answer piece by piece.
        whole: the body, when it was read whole.
        value: the same as a value, for JSON.
        rest: the form, when it is passed on as it comes.
    """

    model: str
    stream: bool = False
    whole: bytes | None = None
    value: dict[str, Any] | None = None
    rest: Form | None = None

    def payload(self, model: str) -> bytes | AsyncIterator[bytes]:
        """Return what a server is sent that calls the model ``model``: the very bytes unless the name differs."""
        if self.rest is not None:
            return self.rest.pieces(model)
        if self.value is not None and model and model != self.model:
            return json.dumps({**self.value, "model": model}).encode()
        return self.whole or b""

    @property
    def repeatable(self) -> bool:
        """Whether the same can be sent once more."""
        return self.rest is None or self.rest.whole


async def read(receive: Receive, headers: Mapping[bytes, bytes], limit: int) -> Asked:
    """Read a request; Problem (400, 413, 415) for one that names no model, is too long or is packed."""
    if headers.get(b"content-encoding", b"identity").lower() != b"identity":
        raise Problem(415, "the body is packed; send it without `Content-Encoding`", code="unsupported_encoding")
    if is_form(headers.get(b"content-type", b"")):
        form = await read_form(receive, headers, limit)
        return Asked(form.model, rest=form)
    whole = await body(receive, limit)
    try:
        value = json.loads(whole)
    except (ValueError, RecursionError) as error:
        raise Problem(400, f"the body is not JSON: {error}") from error
    model = value.get("model") if isinstance(value, dict) else None
    if not isinstance(model, str) or not model:
        raise Problem(400, "the body names no `model`", param="model", code="missing_model")
    return Asked(model, bool(value.get("stream")), whole, value)
