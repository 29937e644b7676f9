"""Requests that a web page makes: which pages may, and what their browser is told (the Fetch standard's CORS).

Servers say nothing about this through the gateway: llama.cpp allows every page that asks.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, MutableMapping
from typing import Any, Final

from labctl.swap.asgi import Header, Send

_HOUR: Final = b"3600"
_EXPOSED: Final = b"x-request-id, retry-after"


def foreign(headers: Mapping[bytes, bytes], origins: Collection[str]) -> bool:
    """Whether a request was made by a page that is neither the gateway's own nor one of ``origins``.

    ``Sec-Fetch-Site`` is the browser's own word; over plain HTTP it is silent, and then ``Origin`` has to be the host
    that was asked. What sends neither is no browser.
    """
    if allowed(headers, origins):
        return False
    site = headers.get(b"sec-fetch-site")
    if site is not None:
        return site not in {b"same-origin", b"none"}
    origin = headers.get(b"origin")
    return origin is not None and origin.split(b"//")[-1] != headers.get(b"host")


def allowed(headers: Mapping[bytes, bytes], origins: Collection[str]) -> bytes:
    """Return the page's origin when it may ask, b"" when there is none or it may not."""
    origin = headers.get(b"origin", b"")
    return origin if "*" in origins or origin.decode("latin-1") in origins else b""


def preflight(origin: bytes, headers: Mapping[bytes, bytes], methods: Collection[str]) -> list[Header]:
    """Return what answers the question whether a page may ask: nothing of use without an ``origin`` that may."""
    found = [(b"allow", _allow(methods))]
    if origin and b"access-control-request-method" in headers:
        found += [
            (b"access-control-allow-methods", _allow(methods)),
            (b"access-control-allow-headers", headers.get(b"access-control-request-headers", b"authorization")),
            (b"access-control-max-age", _HOUR),
        ]
    return found


def _allow(methods: Collection[str]) -> bytes:
    return ", ".join([*methods, *(("HEAD",) if "GET" in methods else ()), "OPTIONS"]).encode()


def readable(send: Send, origin: bytes) -> Send:
    """Return a ``send`` whose answers the page may read."""

    async def told(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            more = [
                (b"access-control-allow-origin", origin),
                (b"access-control-expose-headers", _EXPOSED),
                (b"vary", b"origin"),
            ]
            message = {**message, "headers": [*message["headers"], *more]}
        await send(message)

    return told
