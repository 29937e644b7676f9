"""Traces: a span for each request, sent to a collector by OTLP over HTTP. No prompt, no answer, no key is in them.

Protobuf by hand, since the messages are few and their numbers never change: ``opentelemetry-proto``,
trace/v1/trace.proto and collector/trace/v1/trace_service.proto (1.0 and later). Binary is what every collector takes;
Phoenix takes nothing else.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import struct
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import aiohttp

from labctl.swap.records import Record

log = logging.getLogger("labctl.swap")

EVERY: Final = 2.0
"""Seconds between two deliveries."""
MOST: Final = 2048
"""Spans that are kept for a collector that does not answer; older ones are dropped."""
TIMEOUT: Final = 10.0
_SERVER: Final = 2
_ERROR: Final = 2
_USAGE: Final = MappingProxyType({"prompt": "input_tokens", "completion": "output_tokens"})
_PARENT: Final = re.compile(rb"00-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}")
Value = str | int | float


@dataclass(frozen=True, slots=True)
class Parent:
    """The span of whoever asks (W3C Trace Context), or a new trace without one."""

    trace: bytes
    span: bytes = b""

    @classmethod
    def of(cls, traceparent: bytes) -> Parent:
        """Return what a header says; a new trace when it says nothing that can be read."""
        found = _PARENT.fullmatch(traceparent)
        if found and found[1].strip(b"0") and found[2].strip(b"0"):
            return cls(bytes.fromhex(found[1].decode()), bytes.fromhex(found[2].decode()))
        return cls(os.urandom(16))


def span(record: Record, parent: Parent) -> bytes:
    """Return a request as a ``Span``: when it came, got its server, began to be answered and was over."""
    begun = int(record.at * 1e9)  # a float has no nanoseconds for the time of day: the rest is counted from here
    end = begun + int(record.seconds * 1e9)
    tokens = {f"gen_ai.usage.{_USAGE[kind]}": count for kind, count in record.tokens.items()}
    facts: dict[str, Value] = {
        "http.request.method": "POST",
        "url.path": record.path,
        "http.response.status_code": record.status,
        "gen_ai.request.model": record.model,
        "labctl.server": record.server,
        "labctl.key": record.key,
        "labctl.request_id": record.id,
        "labctl.wait_seconds": record.waited,
        **tokens,
    }
    moments = {"server found": record.waited if record.server else 0.0, "answer begun": record.first}
    return b"".join(
        (
            _bytes(1, parent.trace),
            _bytes(2, os.urandom(8)),
            _bytes(4, parent.span),
            _text(5, f"POST {record.path}"),
            _number(6, _SERVER),
            _fixed(7, begun),
            _fixed(8, end),
            *(_bytes(9, fact) for fact in _facts(facts)),
            *(
                _bytes(11, _fixed(1, begun + int(after * 1e9)) + _text(2, name))
                for name, after in moments.items()
                if after
            ),
            _bytes(15, _number(3, _ERROR)) if record.status >= 500 else b"",
        )
    )


def request(spans: Iterable[bytes]) -> bytes:
    """Return an ``ExportTraceServiceRequest`` with some spans of this gateway."""
    resource = b"".join(_bytes(1, fact) for fact in _facts({"service.name": "labctl-gateway"}))
    scoped = _bytes(1, _text(1, "labctl.swap")) + b"".join(_bytes(2, one) for one in spans)
    return _bytes(1, _bytes(1, resource) + _bytes(2, scoped))


class Traces:
    """Spans on their way to a collector. Requests never wait for it."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session, self._url = session, url.rstrip("/") + "/v1/traces"
        self._spans: deque[bytes] = deque(maxlen=MOST)
        self._silent = False

    def add(self, record: Record, parent: Parent) -> None:
        """Keep a request for the next delivery."""
        self._spans.append(span(record, parent))

    async def deliver(self) -> None:
        """Deliver again and again."""
        while True:
            await asyncio.sleep(EVERY)
            await self.flush()

    async def flush(self) -> None:
        """Deliver what there is. What a collector cannot take now is kept for later, as far as there is room."""
        spans = list(self._spans)
        self._spans.clear()
        if not spans:
            return
        problem, later = await self._send(request(spans))
        if later and (room := MOST - len(self._spans)) > 0:
            self._spans.extendleft(reversed(spans[-room:]))
        if problem and not self._silent:
            log.warning("traces: %s: %s", self._url, problem)
        self._silent = bool(problem)

    async def _send(self, body: bytes) -> tuple[str, bool]:
        """Return what went wrong, and whether it may go better later (429 and 5xx, by OTLP's specification)."""
        headers = {"content-type": "application/x-protobuf"}
        timeout = aiohttp.ClientTimeout(total=TIMEOUT)
        try:
            async with self._session.post(self._url, data=body, headers=headers, timeout=timeout) as response:
                bad = response.status >= 300
                return f"it answered {response.status}" if bad else "", response.status == 429 or response.status >= 500
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            return str(error) or type(error).__name__, True


# --- protobuf's wire format: varints (0), eight bytes (1), bytes with their length (2) --------------------------------


def _facts(values: Mapping[str, Value]) -> list[bytes]:
    """Return ``KeyValue``s; what is not known is left out."""
    return [_text(1, key) + _bytes(2, _value(value)) for key, value in values.items() if value != ""]


def _value(value: Value) -> bytes:
    if isinstance(value, str):
        return _bytes(1, value.encode())
    return _number(3, value) if isinstance(value, int) else _varint(4 << 3 | 1) + struct.pack("<d", value)


def _text(field: int, value: str) -> bytes:
    return _bytes(field, value.encode())


def _bytes(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _fixed(field: int, value: int) -> bytes:
    return _varint(field << 3 | 1) + struct.pack("<Q", value)


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)
