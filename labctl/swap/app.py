"""The gateway's API: who asks, for which model, and what comes back."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import aiohttp
from prometheus_client import generate_latest

from labctl.swap import asked as reading
from labctl.swap import browser, drivers, host, page, paths
from labctl.swap.asgi import EndsWith, Gone, Problem, Receive, Scope, Send, answer, answer_json, headers_of
from labctl.swap.asked import Asked
from labctl.swap.backends import Control
from labctl.swap.config import Backend, Config, Key
from labctl.swap.forward import Answer, Forwarder, NotTaken
from labctl.swap.keys import EVERYBODY, Keys
from labctl.swap.loop import Loop
from labctl.swap.metrics import Metrics
from labctl.swap.records import Record, begin, preview
from labctl.swap.tickets import Ticket, Unavailable
from labctl.swap.trace import Parent, Traces
from labctl.swap.upstream import Connections

log = logging.getLogger("labctl.swap")

ATTEMPTS: Final = 2
"""How often a request is given to a server when the first one had gone."""
REMEMBERED: Final = 200


class App:
    """An ASGI application. ``open`` connects it to everything, ``close`` lets go; ASGI's ``lifespan`` asks for both."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.keys = Keys(config.keys, config.keys_file)
        self.metrics = Metrics()
        self.records: deque[Record] = deque(maxlen=REMEMBERED)
        self._tasks: list[asyncio.Task[None]] = []
        self._traces: Traces | None = None
        self._pages: dict[tuple[str, str], Callable[[Send, Key, Receive], Awaitable[None]]] = {
            ("GET", paths.MODELS): self._models,
            ("GET", "/metrics"): self._figures,
            ("GET", "/api/state"): self._state,
            ("GET", "/api/requests"): self._requests,
            ("DELETE", "/api/requests"): self._forget,
        }

    async def open(self) -> None:
        """Connect to everything; find what runs."""
        # no cache of names: a container that is started again has another address, and its old one another container
        self._session = _session(aiohttp.TCPConnector(limit=0, keepalive_timeout=60, use_dns_cache=False))
        self._connections = Connections()
        self._drivers = drivers.make(self.config.backends)
        control = Control(self._session, self._drivers)
        self.loop = Loop(self.config, control, self.metrics, asyncio.get_running_loop().time)
        self._forwarder = Forwarder(self._connections)
        self.machine = host.Machine()
        await self.loop.open()
        self._tasks.append(asyncio.create_task(for_ever(self.loop.watch)))
        if self.config.otlp:
            self._traces = Traces(self._session, self.config.otlp)
            self._tasks.append(asyncio.create_task(for_ever(self._traces.deliver)))

    def turn_away(self) -> None:
        """Answer everybody who waits that the gateway is about to end."""
        self.loop.turn_away()

    async def close(self) -> None:
        """Let go of everything; servers go on running."""
        for task in self._tasks:
            task.cancel()
        await self.loop.close()
        if self._traces is not None:
            await self._traces.flush()
        for driver in self._drivers.values():
            close = getattr(driver, "close", None)
            if close is not None:
                await close()
        await self._session.close()
        self._connections.close()

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
        headers = headers_of(scope)
        if b"origin" in headers and (origin := browser.allowed(headers, self.config.origins)):
            send = browser.readable(send, origin)
        try:
            await self._route(scope, headers, receive, send)
        except Problem as problem:
            if not problem.status:  # the answer had begun: that it breaks off is all that can be said
                log.warning("%s", problem.message)
                return
            about = [(b"x-request-id", scope["id"])] if "id" in scope else []
            with contextlib.suppress(RuntimeError):  # a server answered before it had all of a form that then broke off
                await answer(send, problem.status, problem.body(), [*problem.headers(), *about])
        except Gone:
            pass
        except Exception:
            log.exception("a bug in the gateway")
            with contextlib.suppress(RuntimeError):  # the answer had begun
                bug = Problem(500, "a bug in the gateway; its log says more", kind="server_error")
                await answer(send, bug.status, bug.body(), bug.headers())

    async def _route(self, scope: Scope, headers: Mapping[bytes, bytes], receive: Receive, send: Send) -> None:
        method, path = scope["method"], paths.plain(scope["path"])
        if method == "OPTIONS" or (method == "HEAD" and "GET" in paths.methods(path)):
            if method == "OPTIONS":
                origin = browser.allowed(headers, self.config.origins)
                await answer(send, 204, b"", browser.preflight(origin, headers, paths.methods(path)))
                return
            method = "GET"
        if method == "GET" and path == "/health":
            await answer_json(send, self.health())
        elif method == "GET" and path in page.FILES:
            await page.show(send, path)
        else:
            await self._keyed(method, path, scope, headers, receive, send)

    async def _keyed(
        self, method: str, path: str, scope: Scope, headers: Mapping[bytes, bytes], receive: Receive, send: Send
    ) -> None:
        """Answer what needs a key, where there are keys."""
        key = self._known(headers)
        if _beyond(key, path):
            raise _not_allowed(key)
        if path.startswith("/api/") and method != "GET" and browser.foreign(headers, ()):
            raise Problem(403, "only the dashboard itself may do this", code="cross_site")
        if method == "POST" and path in paths.APIS:
            await self._serve(path, scope, headers, receive, send, key)
        elif (method, path) in self._pages:
            await self._pages[method, path](send, key, receive)
        elif method == "GET" and path.startswith(f"{paths.MODELS}/"):
            await self._model(path, send, key)
        elif method == "POST" and path.startswith(paths.SERVERS):
            await self._act(path, send, key)
        elif allowed := paths.methods(path):
            message = f"{path} is asked with {' or '.join(allowed)}, not {method}"
            raise Problem(405, message, code="method_not_allowed", allow=", ".join(allowed))
        else:
            raise Problem(404, f"there is no {method} {path} here", code="not_found")

    def _known(self, headers: Mapping[bytes, bytes]) -> Key:
        key = self.keys.who(headers)
        if key is None:
            message = "this needs a valid key: Authorization: Bearer …"
            raise Problem(401, message, kind="authentication_error", code="invalid_api_key")
        if key is EVERYBODY and browser.foreign(headers, self.config.origins):
            raise Problem(403, "this page may not ask here: it is none of the gateway's `origins`", code="cross_site")
        return key

    # --- requests for models ------------------------------------------------------------------------------------------

    async def _serve(
        self, path: str, scope: Scope, headers: Mapping[bytes, bytes], receive: Receive, send: Send, key: Key
    ) -> None:
        too_many = self.keys.enter(key)
        if too_many is not None:
            raise too_many
        record = begin(path, scope, headers, key)
        asked = None
        begun = asyncio.get_running_loop().time()
        try:
            asked = await reading.read(receive, headers, self.config.body_limit)
            self._allowed(asked.model, key)
            record.model, record.preview = asked.model, preview(asked) if self.config.log_prompts else ""
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
            if asked is not None and asked.rest is not None:
                asked.rest.close()
            record.seconds = asyncio.get_running_loop().time() - begun
            self._count(record)
            if self._traces is not None:
                self._traces.add(record, Parent.of(headers.get(b"traceparent", b"")))

    def _allowed(self, model: str, key: Key) -> None:
        if model not in self.loop.waiting:
            known = ", ".join(self._names(key))
            message = f"there is no model {model!r}; known: {known}"
            raise Problem(404, message, code="model_not_found", param="model")
        if key.models and model not in key.models:
            raise Problem(403, f"key {key.name!r} may not use {model!r}", code="model_not_allowed", param="model")

    async def _answered(self, scope: Scope, receive: Receive, send: Send, asked: Asked, record: Record) -> None:
        """Wait for a server and pass the request on; all of it ends when the client leaves."""
        read = None if asked.rest is None else asked.rest.ended  # until then the reader of the form sees it leave
        async with EndsWith(receive, read):
            await self._wait_and_forward(scope, send, asked, record)

    async def _wait_and_forward(self, scope: Scope, send: Send, asked: Asked, record: Record) -> None:
        ticket = self._submit(asked.model)
        headers = [*(h for h in scope["headers"] if h[0] != b"x-request-id"), (b"x-request-id", scope["id"])]
        target = record.path.encode() + (b"?" + scope["query_string"] if scope["query_string"] else b"")
        try:
            while True:
                try:
                    backend = self.loop.backends[await ticket.ready]
                except Unavailable as problem:
                    raise _unavailable(problem) from problem
                now = asyncio.get_running_loop().time()
                record.server, record.waited = backend.name, now - ticket.arrived
                try:
                    got = await self._forwarder.forward(target, headers, asked, backend, send)
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
        record.status, record.tokens, record.first = got.status, got.tokens(), got.begun - ticket.arrived
        self.metrics.child(self.metrics.first_byte, record.model).observe(got.begun - ticket.arrived)

    def _count(self, record: Record) -> None:
        model, metrics = record.model or "?", self.metrics
        metrics.child(metrics.requests, model, record.server, str(record.status)).inc()
        metrics.child(metrics.seconds, model).observe(record.seconds)
        for kind, count in record.tokens.items():
            metrics.child(metrics.tokens, model, kind).inc(count)
        log.info("%s", record.line())

    # --- what people look at ------------------------------------------------------------------------------------------

    def health(self) -> dict[str, Any]:
        """Return whether the gateway works; wakes no model and asks no server."""
        loaded = [s.name for s in self.loop.servers.values() if s.phase.resident]
        return {"status": "ok", "loaded": loaded, "queue": {"length": self.loop.queued, "capacity": self.config.queue}}

    async def _models(self, send: Send, key: Key, _receive: Receive) -> None:
        await answer_json(send, {"object": "list", "data": [_described(name) for name in self._names(key)]})

    async def _model(self, path: str, send: Send, key: Key) -> None:
        name = path.removeprefix(f"{paths.MODELS}/")
        self._allowed(name, key)
        await answer_json(send, _described(name))

    def _names(self, key: Key) -> list[str]:
        return [name for name in self.loop.waiting if not key.models or name in key.models]

    async def _figures(self, send: Send, _key: Key, _receive: Receive) -> None:
        kind = [(b"content-type", b"text/plain; version=0.0.4; charset=utf-8")]
        await answer(send, 200, generate_latest(self.metrics.registry), kind)

    async def _state(self, send: Send, key: Key, _receive: Receive) -> None:
        machine = await asyncio.to_thread(self.machine.look)
        await answer_json(send, page.state(self.loop, machine, admin=key.admin))

    async def _requests(self, send: Send, key: Key, _receive: Receive) -> None:
        mine = [r for r in self.records if key.admin or r.key == key.name]
        await answer_json(send, [page.record(r) for r in reversed(mine)])

    async def _forget(self, send: Send, key: Key, _receive: Receive) -> None:
        _need_admin(key)
        self.records.clear()
        await answer_json(send, {})

    async def _act(self, path: str, send: Send, key: Key) -> None:
        """Start, stop or pin a server. The bearer header is no ambient authority, so a foreign page cannot do it."""
        _need_admin(key)
        name, _, action = path.removeprefix(paths.SERVERS).rpartition("/")
        if name not in self.loop.servers:
            raise Problem(404, f"there is no server {name!r}", code="not_found")
        match action:
            case "start":
                why = self.loop.start(name)
            case "stop":
                why = self.loop.stop(name)
            case "pin" | "unpin":
                why = self.loop.pin(name, pinned=action == "pin")
            case _:
                raise Problem(404, f"a server cannot be told to {action!r}", code="not_found")
        if why:
            raise Problem(409, why, code="conflict")
        await answer_json(send, {"server": name, "phase": self.loop.servers[name].phase})


def _session(connector: aiohttp.TCPConnector) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(connector=connector, auto_decompress=False, cookie_jar=aiohttp.DummyCookieJar())


async def for_ever(work: Callable[[], Awaitable[None]]) -> None:
    """Begin again what a bug has ended: else nobody would look after servers any more, and nobody would know."""
    while True:
        try:
            await work()
        except Exception:
            log.exception("a bug in the gateway")


def _described(name: str) -> dict[str, object]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "labctl"}


def _unavailable(problem: Unavailable) -> Problem:
    return Problem(503, problem.why, kind="server_error", code="model_unavailable", retry_after=problem.retry_after)


def _beyond(key: Key, path: str) -> bool:
    """Whether a key that is for figures only, or for models only, asks for the other."""
    return (path == "/metrics") if key.only == "models" else (key.only == "metrics" and path != "/metrics")


def _need_admin(key: Key) -> None:
    if not key.admin:
        raise _not_allowed(key)


def _not_allowed(key: Key) -> Problem:
    return Problem(403, f"key {key.name!r} may not do this", code="not_allowed")
