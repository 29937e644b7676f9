"""Who may ask for what: digests, limits, a file that changes, and pages of other sites."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from labctl.swap.app import App
from labctl.swap.config import Key, from_value
from labctl.swap.keys import Keys

HOST = "http://lab.example:8888"
ACTIONS = [("POST", f"/api/servers/ant/{action}") for action in ("start", "stop", "pin", "unpin")] + [
    ("DELETE", "/api/requests")
]


def digest(key: str) -> str:
    """Return what is kept of a key."""
    return hashlib.sha256(key.encode()).hexdigest()


KEYS: list[dict[str, Any]] = [
    {"name": "boss", "sha256": digest("sk-boss"), "admin": True},
    {"name": "guest", "sha256": digest("sk-guest"), "models": ["ant"]},
    {"name": "prometheus", "sha256": digest("sk-figures"), "only": "metrics"},
    {"name": "chat", "sha256": digest("sk-models"), "only": "models"},
]


@asynccontextmanager
async def asked(**changes: Any) -> AsyncIterator[httpx.AsyncClient]:
    """Give a client of a gateway in this process, whose one server is never there."""
    backend = {
        "name": "ant",
        "url": "http://127.0.0.1:9",
        "startup": 0.1,
        "driver": {"kind": "supervisor", "at": "/nowhere"},
    }
    app = App(from_value({"backends": [backend], **changes}))
    await app.open()
    try:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=HOST) as client:
            yield client
    finally:
        await app.close()


def bearer(key: str) -> dict[str, str]:
    """Return the header of a key."""
    return {"authorization": f"Bearer {key}"}


@pytest.mark.parametrize(
    ("key", "method", "path", "status"),
    [
        ("sk-boss", "GET", "/metrics", 200),
        ("sk-boss", "GET", "/api/state", 200),
        ("sk-boss", "POST", "/api/servers/ant/pin", 200),
        ("sk-boss", "POST", "/api/servers/dog/pin", 404),
        ("sk-boss", "POST", "/api/servers/ant/explode", 404),
        ("sk-boss", "GET", "/api/servers/ant/stop", 405),
        ("sk-guest", "GET", "/api/state", 200),
        ("sk-guest", "POST", "/api/servers/ant/pin", 403),
        ("sk-guest", "DELETE", "/api/requests", 403),
        ("sk-guest", "GET", "/v1/models/ant", 200),
        ("sk-figures", "GET", "/metrics", 200),
        ("sk-figures", "GET", "/metrics/", 200),
        ("sk-figures", "GET", "/v1/models", 403),
        ("sk-figures", "POST", "/v1/chat/completions", 403),
        ("sk-models", "GET", "/metrics", 403),
        ("sk-models", "GET", "/v1/models", 200),
        ("sk-nobody", "GET", "/v1/models", 401),
        ("", "GET", "/v1/models", 401),
        ("sk-nobody", "GET", "/health", 200),
        ("sk-nobody", "GET", "/", 200),
    ],
)
def test_who_may_what(key: str, method: str, path: str, status: int) -> None:
    """Every key opens what it is for and nothing else."""

    async def run() -> httpx.Response:
        async with asked(keys=KEYS) as client:
            return await client.request(method, path, headers=bearer(key))

    response = asyncio.run(run())
    assert response.status_code == status
    assert "set-cookie" not in response.headers, "nothing that a browser would send along by itself"


@pytest.mark.parametrize("keys", [[], KEYS])
@pytest.mark.parametrize(
    ("about", "may"),
    [
        ({}, True),
        ({"origin": HOST}, True),
        ({"origin": "https://lab.example", "sec-fetch-site": "same-origin", "host": "127.0.0.1:8888"}, True),
        ({"sec-fetch-site": "none"}, True),
        ({"origin": "https://evil.example"}, False),
        ({"origin": "null"}, False),
        ({"origin": "https://evil.example", "sec-fetch-site": "cross-site"}, False),
        ({"origin": "http://lab.example:9999", "sec-fetch-site": "same-site"}, False),
        ({"origin": "https://chat.example", "sec-fetch-site": "cross-site"}, False),
    ],
)
def test_a_page_of_another_site_cannot_act(keys: list[Any], about: dict[str, str], *, may: bool) -> None:
    """Neither with keys nor without; a page that may ask for models may not do this either."""

    async def run() -> list[int]:
        async with asked(keys=keys, origins=["https://chat.example"]) as client:
            found = [await client.request(m, p, headers={**bearer("sk-boss"), **about}) for m, p in ACTIONS]
            return [response.status_code for response in found]

    assert asyncio.run(run()) == [200 if may else 403] * len(ACTIONS)


def test_without_keys_a_page_of_another_site_gets_nothing() -> None:
    """A form or a plain fetch needs no preflight: the gateway itself has to refuse what it would answer anybody."""
    foreign = {"origin": "https://evil.example", "content-type": "text/plain"}

    async def run(**changes: Any) -> list[int]:
        async with asked(**changes) as client:
            body = json.dumps({"model": "dog"})
            return [
                (await client.post("/v1/chat/completions", content=body, headers=foreign)).status_code,
                (await client.get("/v1/models", headers=foreign)).status_code,
                (await client.get("/api/state", headers=foreign)).status_code,
                (await client.get("/metrics", headers=foreign)).status_code,
            ]

    assert asyncio.run(run()) == [403, 403, 403, 403]
    assert asyncio.run(run(origins=["*"])) == [404, 200, 200, 200], "unless the lab says so"


def test_requests_within_a_minute() -> None:
    """As many as the key may; told when the next one may come; others are not counted."""
    now = [0.0]
    keys = Keys((), "", lambda: now[0])
    some, other = Key(name="some", per_minute=3), Key(name="other", per_minute=1)
    for moment in (0.0, 10.0, 20.0):
        now[0] = moment
        assert keys.enter(some) is None
        keys.leave(some)
    now[0] = 30.0
    refused = keys.enter(some)
    assert refused is not None
    assert (refused.status, refused.code, refused.retry_after) == (429, "too_many_requests", 30.0)
    assert keys.enter(other) is None
    now[0] = 60.0
    assert keys.enter(some) is None
    assert keys.enter(some) is not None


def test_requests_at_a_time() -> None:
    """Who is refused is not counted; who has left makes room."""
    keys = Keys((), "")
    key = Key(name="some", parallel=2)
    assert [keys.enter(key) is None for _ in range(3)] == [True, True, False]
    keys.leave(key)
    assert keys.enter(key) is None
    assert keys.enter(key) is not None


def test_a_refused_request_over_http() -> None:
    """429 in OpenAI's shape with Retry-After."""

    async def run() -> httpx.Response:
        async with asked(keys=[{**KEYS[1], "per_minute": 1}]) as client:
            await client.post("/v1/completions", json={"model": "dog"}, headers=bearer("sk-guest"))
            return await client.post("/v1/completions", json={"model": "dog"}, headers=bearer("sk-guest"))

    response = asyncio.run(run())
    assert response.status_code == 429
    assert 1 <= int(response.headers["retry-after"]) <= 60
    assert response.json()["error"] == {
        "message": "key 'guest' has made 1 requests within a minute, as many as it may",
        "type": "rate_limit_error",
        "param": None,
        "code": "too_many_requests",
    }


def test_a_key_is_revoked_while_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is read again when it changes, in place or by another one in its place; it may come later."""
    path = tmp_path / "keys.json"
    monkeypatch.setattr("labctl.swap.keys.LOOK_EVERY", 0.0)

    def write(*names: str) -> None:
        path.with_suffix(".new").write_text(json.dumps([{"name": n, "sha256": digest(f"sk-{n}")} for n in names]))
        os.replace(path.with_suffix(".new"), path)  # noqa: PTH105 - what people's editors do

    async def run() -> list[list[int]]:
        found = []
        async with asked(keys_file=str(path)) as client:

            async def ask() -> None:
                keys = ("sk-ann", "sk-bob")
                found.append([(await client.get("/v1/models", headers=bearer(k))).status_code for k in keys])

            await ask()
            write("ann", "bob")
            await ask()
            write("bob")
            await ask()
            path.write_text("[")
            await ask()
            path.unlink()
            await ask()
            write("ann")
            await ask()
        return found

    nobody, both, bob = [401, 401], [200, 200], [401, 200]
    assert asyncio.run(run()) == [nobody, both, bob, bob, nobody, [200, 401]]


def test_a_key_of_the_environment_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes by a variable is kept as a digest, and the programs that the gateway runs do not inherit it."""
    monkeypatch.setenv("LABCTL_KEY_BOSS", "sk-boss")
    keys = Keys((Key(name="boss", env="LABCTL_KEY_BOSS"),), "")
    assert "LABCTL_KEY_BOSS" not in os.environ
    assert "sk-boss" not in repr(vars(keys))
    assert keys.who({b"authorization": b"bearer  sk-boss "}) is not None
    assert keys.who({b"authorization": "Bearer sk-böss".encode()}) is None
