"""A form's body, read no further than needed: pieces as a client may cut them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import pytest

from labctl.swap.asgi import Problem, Receive
from labctl.swap.asked import Asked, read

FORM = b"multipart/form-data; boundary=cut"


def receiver(pieces: Iterable[bytes]) -> Receive:
    """Return ASGI's ``receive`` of a client that sends these."""
    left = list(pieces)

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": left.pop(0), "more_body": bool(left)}

    return receive


async def whole(asked: Asked) -> bytes:
    """Return what a server would be sent."""
    assert asked.rest is not None
    return b"".join([piece async for piece in asked.rest])


def test_a_form_that_grows_too_long_on_its_way() -> None:
    """Its sender is told the limit, not by how much he exceeds it."""
    head = b'--cut\r\ncontent-disposition: form-data; name="model"\r\n\r\nant\r\n'

    async def run() -> Problem:
        asked = await read(receiver([head, b"x" * (1 << 20), b"x" * (1 << 20)]), FORM, 2 << 20)
        with pytest.raises(Problem) as caught:
            await whole(asked)
        return caught.value

    problem = asyncio.run(run())
    assert problem.status == 413
    assert problem.message == "the request has more than 2 MiB"
