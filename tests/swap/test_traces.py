"""Traces, decoded by OpenTelemetry's own messages. The collector is a stand-in that keeps what it gets."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import aiohttp
import httpx
import pytest

from labctl.swap import trace
from labctl.swap.records import Record
from labctl.swap.trace import Parent, Traces, request, span
from tests.swap.bench import bench

service = pytest.importorskip(
    "opentelemetry.proto.collector.trace.v1.trace_service_pb2",
    reason="opentelemetry-proto is not installed: nobody to decode traces",
)
TRACE, ASKER = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
HEADER = f"00-{TRACE}-{ASKER}-01"


def decoded(body: bytes) -> list[Any]:
    """Return the spans of a request."""
    message = service.ExportTraceServiceRequest.FromString(body)
    (resource,) = message.resource_spans
    assert [(a.key, a.value.string_value) for a in resource.resource.attributes] == [("service.name", "labctl-gateway")]
    (scope,) = resource.scope_spans
    assert scope.scope.name == "labctl.swap"
    return list(scope.spans)


def facts(found: Any) -> dict[str, Any]:
    """Return a span's attributes."""
    return {a.key: getattr(a.value, a.value.WhichOneof("value")) for a in found.attributes}


@contextmanager
def collector(*answers: int) -> Iterator[tuple[str, list[tuple[str, str, bytes]]]]:
    """Give the URL of a collector that answers so, then 200; and what it was sent: path, type, body."""
    got: list[tuple[str, str, bytes]] = []
    left = list(answers)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            got.append((self.path, self.headers["content-type"], body))
            self.send_response(left.pop(0) if left else 200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", got
        server.shutdown()


def record(**changes: Any) -> Record:
    """Return a request that was answered."""
    known: dict[str, Any] = {
        "status": 200,
        "server": "box-ant",
        "waited": 1.5,
        "first": 1.75,
        "seconds": 2.0,
        "tokens": {"prompt": 300, "completion": 7},
        "preview": "a secret",
    }
    return Record("c0ffee", 1_700_000_000.5, "/v1/chat/completions", "ant", "10.0.0.1", "bob", **{**known, **changes})


def test_a_span() -> None:
    """Every field where OpenTelemetry looks for it; no prompt, no address of a client."""
    body = request([span(record(), Parent.of(HEADER.encode()))])
    (found,) = decoded(body)
    assert (found.trace_id.hex(), found.parent_span_id.hex()) == (TRACE, ASKER)
    assert len(found.span_id) == 8
    assert found.name == "POST /v1/chat/completions"
    assert found.kind == 2
    assert found.end_time_unix_nano - found.start_time_unix_nano == 2_000_000_000
    events = [(e.name, (e.time_unix_nano - found.start_time_unix_nano) / 1e9) for e in found.events]
    assert events == [("server found", 1.5), ("answer begun", 1.75)]
    assert facts(found) == {
        "http.request.method": "POST",
        "url.path": "/v1/chat/completions",
        "http.response.status_code": 200,
        "gen_ai.request.model": "ant",
        "labctl.server": "box-ant",
        "labctl.key": "bob",
        "labctl.request_id": "c0ffee",
        "labctl.wait_seconds": 1.5,
        "gen_ai.usage.input_tokens": 300,
        "gen_ai.usage.output_tokens": 7,
    }
    assert found.status.code == 0
    assert b"secret" not in body
    assert b"10.0.0.1" not in body


def test_a_span_of_what_failed() -> None:
    """An error, and only what is known."""
    (found,) = decoded(request([span(record(status=503, server="", waited=0.0, first=0.0, tokens={}), Parent.of(b""))]))
    assert found.status.code == 2
    assert found.parent_span_id == b""
    assert list(found.events) == []
    assert "labctl.server" not in facts(found)


@pytest.mark.parametrize("header", [b"", b"00-x-y-01", f"00-{'0' * 32}-{ASKER}-01".encode(), HEADER.upper().encode()])
def test_a_parent_that_cannot_be_read(header: bytes) -> None:
    """A new trace."""
    parent = Parent.of(header)
    assert (len(parent.trace), parent.span) == (16, b"")
    assert parent.trace.hex() != TRACE


@pytest.mark.parametrize(("answers", "sent"), [((), [2]), ((503, 429), [2, 2, 2]), ((400,), [2])])
def test_what_a_collector_does_not_take(answers: tuple[int, ...], sent: list[int]) -> None:
    """Kept for later when it is busy, dropped when it will never take it."""

    async def run(url: str) -> None:
        async with aiohttp.ClientSession() as session:
            traces = Traces(session, f"{url}/")
            for _ in range(2):
                traces.add(record(), Parent.of(b""))
            for _ in range(4):
                await traces.flush()

    with collector(*answers) as (url, got):
        asyncio.run(run(url))
    assert [len(decoded(body)) for _, _, body in got] == sent
    assert {(path, kind) for path, kind, _ in got} == {("/v1/traces", "application/x-protobuf")}


def test_a_collector_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest are kept, no more than there is room for."""
    monkeypatch.setattr(trace, "MOST", 3)

    async def run(url: str) -> None:
        async with aiohttp.ClientSession() as session:
            away, there = Traces(session, "http://127.0.0.1:9"), Traces(session, url)
            for number in range(5):
                away.add(record(status=200 + number), Parent.of(b""))
                await away.flush()
            there._spans.extend(away._spans)
            await there.flush()

    with collector() as (url, got):
        asyncio.run(run(url))
    assert [facts(s)["http.response.status_code"] for s in decoded(got[0][2])] == [202, 203, 204]


@pytest.mark.slow
def test_a_request_to_a_real_server() -> None:
    """Part of the asker's trace: waiting, first byte; delivered when the gateway ends, at the latest."""
    pytest.importorskip("xllamacpp")
    with collector() as (url, got), bench(["ant"]) as lab:
        process = lab.gateway(lab.config(otlp=url))
        body = {"model": "ant", "stream": True, "messages": [{"role": "user", "content": "a secret"}]}
        asked = httpx.post(f"{lab.url}/v1/chat/completions", json=body, headers={"traceparent": HEADER}, timeout=60)
        httpx.post(f"{lab.url}/v1/chat/completions", json={"model": "dog"})
        process.terminate()
        process.wait(20)
        spans = [s for _, _, body in got for s in decoded(body)]
    answered, refused = spans
    assert (answered.trace_id.hex(), answered.parent_span_id.hex()) == (TRACE, ASKER)
    said = facts(answered)
    assert said["labctl.request_id"] == asked.headers["x-request-id"]
    assert (said["labctl.server"], said["http.response.status_code"]) == ("ant", 200)
    assert 0 < said["labctl.wait_seconds"] < 60
    moments = [e.time_unix_nano for e in answered.events]
    assert answered.start_time_unix_nano < moments[0] < moments[1] <= answered.end_time_unix_nano
    assert facts(refused)["http.response.status_code"] == 404
    assert not any(b"secret" in body for _, _, body in got)
