"""The gateway's API: who asks, for which model, and what comes back."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
import uuid
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp
from prometheus_client import generate_latest

from labctl.swap import asked as reading
from labctl.swap import drivers, host, page
from labctl.swap.asgi import Gone, Problem, Receive, Scope, Send, answer, answer_json, headers_of
from labctl.swap.asked import Asked
from labctl.swap.backends import Control
from labctl.swap.config import Backend, Config, Key
from labctl.swap.forward import Answer, Forwarder, NotTaken
from labctl.swap.keys import Keys
from labctl.swap.loop import Loop
from labctl.swap.metrics import Metrics
from labctl.swap.tickets import Ticket, Unavailable

log = logging.getLogger("labctl.swap")

APIS: Final = frozenset(
    {
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/embeddings",
        "/v1/rerank",
        "/v1/responses",
        "/v1/audio/transcriptions",
        "/v1/audio/translations",
        "/v1/audio/speech",
        "/v1/images/generations",
        "/v1/images/edits",
    }
)
ATTEMPTS: Final = 2
"""How often a request is given to a server when the first one had gone."""
REMEMBERED: Final = 200
PREVIEW: Final = 80


@dataclass(slots=True)
class Record:
    """A request as the dashboard's list shows it."""

    id: str
    at: float
    path: str
    model: str
    client: str
    key: str
    status: int = 0
    server: str = ""
    waited: float = 0.0
    seconds: float = 0.0
    tokens: dict[str, int] = field(default_factory=dict)
    preview: str = ""


class App:
    """An ASGI application. Use it as ``async with App(config) as app``, or let ``lifespan`` open and close it."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.keys = Keys(config.keys, config.keys_file)
        self.metrics = Metrics()
        self.records: deque[Record] = deque(maxlen=REMEMBERED)
        self._watch: asyncio.Task[None] | None = None
        self._pages: dict[tuple[str, str], Callable[[Send, Key, Receive], Awaitable[None]]] = {
            ("GET", "/v1/models"): self._models,
            ("GET", "/api/state"): self._state,
            ("GET", "/api/requests"): self._requests,
            ("DELETE", "/api/requests"): self._forget,
        }

    async def open(self) -> None:
        """Connect to everything; find what runs."""
        # no cache of names: a container that is started again has another address, and its old one another container
        self._session = _session(aiohttp.TCPConnector(limit=0, keepalive_timeout=60, use_dns_cache=False))
        self._fresh = _session(aiohttp.TCPConnector(limit=0, force_close=True, use_dns_cache=False))
        self._drivers = drivers.make(self.config.backends)
        control = Control(self._session, self._drivers)
        self.loop = Loop(self.config, control, self.metrics, asyncio.get_running_loop().time)
        self._forwarder = Forwarder(self._session, self._fresh)
        self.machine = host.Machine()
        await self.loop.open()
        self._watch = asyncio.create_task(self.loop.watch())

    def turn_away(self) -> None:
        """Answer everybody who waits that the gateway is about to end."""
        self.loop.turn_away()

    async def close(self) -> None:
        """Let go of everything; servers go on running."""
        if self._watch is not None:
            self._watch.cancel()
        await self.loop.close()
        for driver in self._drivers.values():
            close = getattr(driver, "close", None)
            if close is not None:
                await close()
        await self._session.close()
        await self._fresh.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI's entry."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "http":
            await self._http(scope, receive, send)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                await self.open()
                await send({"type": "lifespan.startup.complete"})
            else:
                await self.close()
                await send({"type": "lifespan.shutdown.complete"})
                return

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._route(scope, receive, send)
        except Problem as problem:
            if problem.status:
                await answer(send, problem.status, problem.body(), problem.headers())
            else:
                log.warning("%s", problem.message)
                raise ConnectionResetError(problem.message) from problem
        except Gone:
            pass

    async def _route(self, scope: Scope, receive: Receive, send: Send) -> None:
        method, path = scope["method"], scope["path"]
        if method == "GET" and path == "/health":
            await answer_json(send, self.health())
            return
        if method == "GET" and path in page.FILES:
            await page.show(send, path)
            return
        key = self._known(scope)
        if path == "/metrics" and key.only == "models":
            raise _not_allowed(key)
        if method == "GET" and path == "/metrics":
            headers = [(b"content-type", b"text/plain; version=0.0.4; charset=utf-8")]
            await answer(send, 200, generate_latest(self.metrics.registry), headers)
        elif key.only == "metrics":
            raise _not_allowed(key)
        elif (method, path) in self._pages:
            await self._pages[method, path](send, key, receive)
        elif method == "POST" and path in APIS:
            await self._serve(scope, receive, send, key)
        elif method == "POST" and path.startswith("/api/servers/"):
            await self._act(path, scope, send, key)
        else:
            raise Problem(404, f"there is no {method} {path} here", code="not_found")

    def _known(self, scope: Scope) -> Key:
        key = self.keys.who(headers_of(scope))
        if key is None:
            message = "this needs a valid key: Authorization: Bearer …"
            raise Problem(401, message, kind="authentication_error", code="invalid_api_key")
        return key

    # --- requests for models ------------------------------------------------------------------------------------------

    async def _serve(self, scope: Scope, receive: Receive, send: Send, key: Key) -> None:
        if not self.keys.enter(key):
            message = f"key {key.name!r} has {key.parallel} requests under way, as many as it may"
            raise Problem(429, message, kind="rate_limit_error", code="too_many_requests", retry_after=1)
        record = _record(scope, key)
        begun = asyncio.get_running_loop().time()
        try:
            asked = await reading.read(receive, headers_of(scope).get(b"content-type", b""), self.config.body_limit)
            self._allowed(asked.model, key)
            record.model, record.preview = asked.model, self._preview(asked)
            self.records.append(record)
            await self._answered(scope, receive, send, asked, record)
        except Problem as problem:
            record.status = problem.status or 502
            raise
        except Gone:
            record.status = 499
            raise
        finally:
            self.keys.leave(key)
            record.seconds = asyncio.get_running_loop().time() - begun
            self._count(record)

    def _allowed(self, model: str, key: Key) -> None:
        if model not in self.loop.waiting:
            known = ", ".join(sorted(self.loop.waiting))
            message = f"there is no model {model!r}; known: {known}"
            raise Problem(404, message, code="model_not_found", param="model")
        if key.models and model not in key.models:
            raise Problem(403, f"key {key.name!r} may not use {model!r}", code="model_not_allowed", param="model")

    async def _answered(self, scope: Scope, receive: Receive, send: Send, asked: Asked, record: Record) -> None:
        """Wait for a server and pass the request on; all of it ends when the client leaves."""
        work = asyncio.ensure_future(self._wait_and_forward(scope, send, asked, record))
        if asked.rest is not None:  # its body is still being read: the reader sees the client leave
            await work
            return
        left = asyncio.ensure_future(_left(receive))
        try:
            await asyncio.wait({work, left}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                raise Gone
            work.result()
        finally:
            for task in (work, left):
                if not task.done():
                    task.cancel()
                    with contextlib.suppress(asyncio.CancelledError, Exception):
                        await task

    async def _wait_and_forward(self, scope: Scope, send: Send, asked: Asked, record: Record) -> None:
        ticket = self._submit(asked.model)
        headers = [*scope["headers"], (b"x-request-id", record.id.encode())]
        path = scope["path"] + (f"?{scope['query_string'].decode()}" if scope["query_string"] else "")
        try:
            while True:
                try:
                    backend = self.loop.backends[await ticket.ready]
                except Unavailable as problem:
                    raise _unavailable(problem) from problem
                now = asyncio.get_running_loop().time()
                record.server, record.waited = backend.name, now - ticket.arrived
                try:
                    got = await self._forwarder.forward(scope["method"], path, headers, asked, backend, send)
                except NotTaken as problem:
                    ticket = self._again(ticket, backend, problem)
                    continue
                self._finish(record, got, ticket)
                return
        finally:
            self.loop.leave(ticket)

    def _submit(self, model: str) -> Ticket:
        try:
            return self.loop.submit(model)
        except Unavailable as problem:
            raise _unavailable(problem) from problem

    def _again(self, ticket: Ticket, backend: Backend, problem: NotTaken) -> Ticket:
        if ticket.returned + 1 >= ATTEMPTS:
            message = f"{backend.name} cannot be reached: {problem}"
            raise Problem(502, message, kind="server_error", code="backend_unreachable", retry_after=5)
        again = self.loop.lost(ticket)
        self.loop.settle()
        return again

    def _finish(self, record: Record, got: Answer, ticket: Ticket) -> None:
        record.status, record.tokens = got.status, got.tokens()
        self.metrics.first_byte.labels(record.model).observe(got.begun - ticket.arrived)

    def _count(self, record: Record) -> None:
        model = record.model or "?"
        self.metrics.requests.labels(model, record.server, str(record.status)).inc()
        self.metrics.seconds.labels(model).observe(record.seconds)
        for kind, count in record.tokens.items():
            self.metrics.tokens.labels(model, kind).inc(count)
        log.info(
            json.dumps(
                {
                    "id": record.id,
                    "path": record.path,
                    "model": model,
                    "server": record.server,
                    "status": record.status,
                    "waited": round(record.waited, 4),
                    "seconds": round(record.seconds, 4),
                    "key": record.key,
                }
            )
        )

    def _preview(self, asked: Asked) -> str:
        if not self.config.log_prompts or asked.value is None:
            return ""
        messages = asked.value.get("messages")
        last = messages[-1].get("content") if isinstance(messages, list) and messages else asked.value.get("prompt")
        return str(last or "")[:PREVIEW]

    # --- what people look at ------------------------------------------------------------------------------------------

    def health(self) -> dict[str, Any]:
        """Return whether the gateway works; wakes no model and asks no server."""
        loaded = [s.name for s in self.loop.servers.values() if s.phase.resident]
        return {"status": "ok", "loaded": loaded, "queue": {"length": self.loop.queued, "capacity": self.config.queue}}

    async def _models(self, send: Send, key: Key, _receive: Receive) -> None:
        names = [n for n in self.loop.waiting if not key.models or n in key.models]
        data = [{"id": n, "object": "model", "created": 0, "owned_by": "labctl"} for n in names]
        await answer_json(send, {"object": "list", "data": data})

    async def _state(self, send: Send, key: Key, _receive: Receive) -> None:
        machine = await asyncio.to_thread(self.machine.look)
        await answer_json(send, {**page.state(self.loop), "machine": machine, "admin": key.admin})

    async def _requests(self, send: Send, key: Key, _receive: Receive) -> None:
        mine = [r for r in self.records if key.admin or r.key == key.name]
        await answer_json(send, [page.record(r) for r in reversed(mine)])

    async def _forget(self, send: Send, key: Key, _receive: Receive) -> None:
        _need_admin(key)
        self.records.clear()
        await answer_json(send, {})

    async def _act(self, path: str, scope: Scope, send: Send, key: Key) -> None:
        """Start, stop or pin a server. The bearer header is no ambient authority, so a foreign page cannot do it."""
        _need_admin(key)
        _same_site(scope)
        name, _, action = path.removeprefix("/api/servers/").partition("/")
        if name not in self.loop.servers:
            raise Problem(404, f"there is no server {name!r}", code="not_found")
        match action:
            case "start":
                why = self.loop.start(name)
            case "stop":
                why = self.loop.stop(name)
            case "pin" | "unpin":
                self.loop.pin(name, pinned=action == "pin")
                why = ""
            case _:
                raise Problem(404, f"a server cannot be told to {action!r}", code="not_found")
        if why:
            raise Problem(409, why, code="conflict")
        await answer_json(send, {"server": name, "phase": self.loop.servers[name].phase})


def _session(connector: aiohttp.TCPConnector) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(connector=connector, auto_decompress=False, cookie_jar=aiohttp.DummyCookieJar())


async def _left(receive: Receive) -> None:
    """Return when the client has left."""
    while (await receive())["type"] != "http.disconnect":
        pass


def _record(scope: Scope, key: Key) -> Record:
    given = headers_of(scope).get(b"x-request-id", b"").decode("latin-1")[:64]
    client = scope.get("client") or ("", 0)
    known = given if given.isascii() and given.isprintable() and given else uuid.uuid4().hex
    return Record(known, time.time(), scope["path"], "", client[0], key.name)


def _unavailable(problem: Unavailable) -> Problem:
    return Problem(503, problem.why, kind="server_error", code="model_unavailable", retry_after=problem.retry_after)


def _need_admin(key: Key) -> None:
    if not key.admin:
        raise _not_allowed(key)


def _not_allowed(key: Key) -> Problem:
    return Problem(403, f"key {key.name!r} may not do this", code="not_allowed")


def _same_site(scope: Scope) -> None:
    """Without keys there is no bearer header that a foreign page could not send: its own headers tell it."""
    headers = headers_of(scope)
    if headers.get(b"sec-fetch-site", b"same-origin") not in {b"same-origin", b"none"}:
        raise Problem(403, "only the dashboard itself may do this", code="cross_site")
    origin = headers.get(b"origin")
    if origin is not None and origin.split(b"//")[-1] != headers.get(b"host"):
        raise Problem(403, "only the dashboard itself may do this", code="cross_site")
