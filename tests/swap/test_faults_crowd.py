"""Many clients, impatient ones, slow ones, and a gateway that is killed while they wait."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.swap import standin
from tests.swap.bench import GIB, Bench, Observer, bench, sentence

for module in ("xllamacpp", "supervisor"):
    pytest.importorskip(module, reason=f"{module} is not installed: no real servers to run")

pytestmark = pytest.mark.slow

CROWD = 1000
BOX = f"exec {{python}} {standin.__file__} {{port}}"
"""A stand-in that pours out more than llama.cpp would in an hour."""


@pytest.fixture(scope="module")
def lab() -> Iterator[Bench]:
    """Two real servers of which one fits, and a stand-in."""
    with bench(["ant", "bee", "box"], commands={"box": BOX}) as it:
        yield it


@pytest.fixture(autouse=True)
def fresh(lab: Bench) -> Iterator[None]:
    """Leave nothing to the next test."""
    yield
    lab.reset()


def config(lab: Bench, **changes: Any) -> dict[str, Any]:
    """Return a configuration: one server fits at a time."""
    return lab.config(cards={"gpu": 4 * GIB}, **changes)


def request(model: str, **more: Any) -> bytes:
    """Return a request as bytes, to be sent without a client that costs more than the gateway."""
    body = httpx.Request("POST", "http://x", json={"model": model, "prompt": "hi", "max_tokens": 8, **more}).content
    head = f"POST /v1/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


async def come(port: int, model: str, leaves: float | None) -> str:
    """Ask once; return the answer's text, or "left"."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request(model))
        if leaves is not None:
            await asyncio.sleep(leaves)
            return "left"
        return (await asyncio.wait_for(reader.read(), 120)).decode()
    finally:
        writer.close()


def test_a_thousand_clients_of_whom_half_leave(lab: Bench) -> None:
    """On two models in turn, one card: all that stay are answered by their model; nothing is left over."""
    given = config(lab, queue=2 * CROWD)
    process = lab.gateway(given, files=256)

    async def all_of_them() -> list[str]:
        port = given["port"]
        leaves = [i * 0.003 if i % 4 >= 2 else None for i in range(CROWD)]
        return await asyncio.gather(*(come(port, ("ant", "bee")[i % 2], leaves[i]) for i in range(CROWD)))

    with Observer(lab) as seen:
        answers = asyncio.run(all_of_them())
    for i, said in enumerate(answers):
        expected = "left" if i % 4 >= 2 else sentence(("ant", "bee")[i % 2])
        assert expected in said, said
    assert seen.most == 1
    state = httpx.get(f"{lab.url}/api/state").json()
    assert state["queue"]["length"] == 0
    assert all(server["busy"] == 0 for server in state["servers"])
    assert peak(process.pid) < 150 << 20
    assert "Traceback" not in lab.log()


def test_slow_readers(lab: Bench) -> None:
    """A thousand seconds of reading at a byte a second, of 32 MiB each: they hold nobody up, and nothing piles up."""
    given = config(lab)
    for backend in given["backends"]:
        backend["slots"] = 16 if backend["name"] == "box" else 2
    given["cards"] = {"gpu": 8 * GIB}
    process = lab.gateway(given)
    assert lab.ask("ant") == sentence("ant")
    httpx.post(f"{lab.url}/v1/completions", json={"model": "box", "max_tokens": 0})
    before = peak(process.pid)

    async def slowly() -> None:
        connections = [await asyncio.open_connection("127.0.0.1", given["port"], limit=1) for _ in range(12)]
        for _, writer in connections:
            writer.write(request("box", max_tokens=32))
        for _ in range(3):
            for reader, _ in connections:
                assert await asyncio.wait_for(reader.readexactly(1), 20)
            assert await asyncio.to_thread(lab.ask, "ant") == sentence("ant")
            await asyncio.sleep(1)
        quick = await asyncio.to_thread(httpx.post, f"{lab.url}/v1/completions", json={"model": "box", "max_tokens": 8})
        assert len(quick.content) == 8 << 20, "another reader of the same server is not slowed down"
        for _, writer in connections:
            writer.close()

    asyncio.run(slowly())
    assert peak(process.pid) - before < 48 << 20, "12 × 32 MiB are not kept for them"
    wait_idle(lab)


def test_who_reads_nothing_is_taken_for_gone(lab: Bench) -> None:
    """Its place at the server is given to others, so that nobody waits for ever behind a laptop that was closed."""
    given = config(lab)
    lab.gateway(given, before="import labctl.swap.forward\nlabctl.swap.forward.STALLED = 1.0")

    async def never() -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", given["port"], limit=1)
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(request("box", max_tokens=64))
        assert await asyncio.to_thread(lab.ask, "ant") == sentence("ant"), (
            "it had to wait for the only place on the card"
        )
        writer.close()

    asyncio.run(never())
    assert {r["status"] for r in httpx.get(f"{lab.url}/api/requests").json() if r["model"] == "box"} == {499}


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_gateway_that_ends_with_a_full_queue(lab: Bench, how: signal.Signals) -> None:
    """Nobody hangs; told to end, it says so to everybody; the next gateway goes on with the same servers."""
    given = config(lab, queue=20)
    process = lab.gateway(given)
    assert lab.ask("ant") == sentence("ant")
    lab.call("signalProcess", "ant", "STOP")  # it answers nobody now

    async def crowd() -> list[str]:
        waiting = [asyncio.create_task(come(given["port"], ("ant", "bee")[i % 2], None)) for i in range(22)]
        while httpx.get(f"{lab.url}/health").json()["queue"]["length"] < 20:
            await asyncio.sleep(0.05)
        full = await come(given["port"], "bee", None)
        assert full.startswith("HTTP/1.1 503")
        assert "20 requests wait already" in full
        process.send_signal(how)
        while how is signal.SIGTERM and sum(task.done() for task in waiting) < 20:
            await asyncio.sleep(0.05)
        lab.call("signalProcess", "ant", "CONT")
        return [str(found) for found in await asyncio.gather(*waiting, return_exceptions=True)]

    answers = asyncio.run(crowd())
    process.wait(20)
    if how is signal.SIGTERM:
        told = [a for a in answers if a.startswith("HTTP/1.1 503")]
        assert len(told) == 20
        assert all("the gateway is stopping" in a and "retry-after: " in a for a in told)
        served = [a for a in answers if a not in told]
        assert all(sentence("ant") in a for a in served), "those that a server worked on were answered"
    kept = next(p["pid"] for p in lab.call("getAllProcessInfo") if p["name"] == "ant")
    lab.gateway(given)
    with Observer(lab) as seen, ThreadPoolExecutor(8) as pool:
        names = ["ant", "ant", "bee"]
        assert lab.ask("ant") == sentence("ant")
        assert next(p["pid"] for p in lab.call("getAllProcessInfo") if p["name"] == "ant") == kept
        assert list(pool.map(lab.ask, names)) == [sentence(name) for name in names]
    assert seen.most == 1


def peak(pid: int) -> int:
    """Return the most memory that a process has had (VmHWM of proc(5)), in bytes."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) << 10


def wait_idle(lab: Bench) -> None:
    """Wait until nobody is served any more."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        servers = httpx.get(f"{lab.url}/api/state").json()["servers"]
        if not any(server["busy"] for server in servers):
            return
        time.sleep(0.1)
    message = "somebody is still served"
    raise AssertionError(message)
