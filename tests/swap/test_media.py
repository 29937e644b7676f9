"""Long uploads through the gateway: to a stand-in, since llama.cpp hears nothing. It takes no memory to carry them."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.swap import standin
from tests.swap.bench import GIB, Bench, bench, sentence
from tests.swap.test_faults_crowd import peak, wait_idle

for module in ("xllamacpp", "supervisor"):
    pytest.importorskip(module, reason=f"{module} is not installed: no real servers to run")

pytestmark = pytest.mark.slow

PIECE = hashlib.shake_256(b"a song").digest(1 << 20)
LONG = 200
"""Pieces of an upload."""
BOUNDARY = "----labctl-cut"
URL = "/v1/audio/transcriptions"


@pytest.fixture(scope="module")
def lab() -> Iterator[Bench]:
    """A real server and a stand-in that calls its model otherwise than people do; one of them fits."""
    box = f"exec {{python}} {standin.__file__} {{port}}"
    with bench(["ant", "voice"], commands={"voice": box}) as it:
        yield it


@pytest.fixture(autouse=True)
def fresh(lab: Bench) -> Iterator[None]:
    """Leave nothing to the next test."""
    yield
    lab.reset()


def config(lab: Bench, **changes: Any) -> dict[str, Any]:
    """Return a configuration: one server fits, the stand-in calls its model by a longer name."""
    found = lab.config(cards={"gpu": 4 * GIB}, body_limit=1 << 30, **changes)
    found["backends"][1]["model"] = "someone/whisper-large"
    found["backends"][1]["slots"] = 8
    return found


def part(name: str, value: str) -> bytes:
    """Return one field."""
    return f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()


HEAD = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="model"\r\n\r\n'.encode()
END = f"--{BOUNDARY}--\r\n".encode()


async def upload(lab: Bench, *, last: bool, sized: bool, pieces: int = LONG, pause: float = 0) -> tuple[int, Any, str]:
    """Send a form piece by piece; return status, answer and the digest of what the server has to get."""
    digest, size = hashlib.sha256(), 0
    field = part("model", "voice")
    before, after = (b"", field) if last else (field, b"")
    long = sum(map(len, (before, HEAD, after, END))) + pieces * len(PIECE) + 2

    async def content() -> AsyncIterator[bytes]:
        nonlocal size
        for piece in (before + HEAD, *(PIECE for _ in range(pieces)), b"\r\n" + after + END):
            theirs = piece.replace(field, part("model", "someone/whisper-large"))
            digest.update(theirs)
            size += len(theirs)
            yield piece
            await asyncio.sleep(pause if piece is PIECE else 0)

    headers = {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}
    if sized:
        headers["content-length"] = str(long)
    async with httpx.AsyncClient(timeout=120) as client:
        response = await client.post(lab.url + URL, content=content(), headers=headers)
    return response.status_code, response.json(), digest.hexdigest()


@pytest.mark.parametrize(("last", "sized"), [(False, True), (True, False)])
def test_a_long_upload_takes_no_memory(lab: Bench, *, last: bool, sized: bool) -> None:
    """200 MB, its model before the file or after it: all of it arrives, with the server's own name for the model."""
    process = lab.gateway(config(lab))
    assert asyncio.run(upload(lab, last=False, sized=True, pieces=1))[0] == 200
    before = peak(process.pid)
    status, heard, digest = asyncio.run(upload(lab, last=last, sized=sized))
    assert (status, heard["sha256"]) == (200, digest)
    assert heard["size"] > LONG << 20
    assert ("content-length" in heard["headers"]) is sized
    assert ("transfer-encoding" in heard["headers"]) is not sized
    assert peak(process.pid) - before < 16 << 20


def test_a_form_for_a_server_that_has_gone(lab: Bench) -> None:
    """A form that was read to its end is sent once more, to the server that is started anew."""
    lab.gateway(config(lab))
    assert asyncio.run(upload(lab, last=True, sized=True, pieces=3))[0] == 200
    lab.call("signalProcess", "voice", "KILL")
    status, heard, digest = asyncio.run(upload(lab, last=True, sized=True, pieces=3))
    assert (status, heard["sha256"]) == (200, digest)


def test_a_sender_that_leaves_while_it_waits(lab: Bench) -> None:
    """Its place is free again, whether its form had come whole or not, and nobody is blamed."""
    lab.gateway(config(lab, patience=1))
    assert lab.ask("ant") == sentence("ant")

    async def leave(pieces: int) -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(upload(lab, last=False, sized=True, pieces=pieces, pause=0.05), 1)

    lab.call("signalProcess", "ant", "STOP")  # it answers nobody, and has the card
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(lab.ask, "ant")
        asyncio.run(leave(0))
        wait_for_queue(lab)
        lab.call("signalProcess", "ant", "CONT")
        assert asked.result() == sentence("ant")
    asyncio.run(leave(100))
    assert lab.ask("ant") == sentence("ant")
    wait_idle(lab)
    wait_for_queue(lab)
    records = httpx.get(f"{lab.url}/api/requests").json()
    assert {r["status"] for r in records if r["model"] == "voice"} == {499}


def wait_for_queue(lab: Bench) -> None:
    """Wait until nobody waits."""
    deadline = time.monotonic() + 20
    while httpx.get(f"{lab.url}/health").json()["queue"]["length"]:
        assert time.monotonic() < deadline, "somebody waits who has left"
        time.sleep(0.05)


def test_too_long_on_its_way(lab: Bench) -> None:
    """Without a declared length it is cut off at the limit, and told so; the server is not blamed."""
    given = config(lab)
    given["body_limit"] = 3 << 20
    lab.gateway(given)
    status, answer, _ = asyncio.run(upload(lab, last=False, sized=False, pieces=8))
    assert status == 413
    assert answer["error"]["message"] == "the request has more than 3 MiB"
    assert asyncio.run(upload(lab, last=False, sized=True, pieces=2))[0] == 200, "the server is fine"


def test_a_sender_that_stalls(lab: Bench) -> None:
    """It does not keep its place at the server."""
    lab.gateway(config(lab), before="import labctl.swap.form\nlabctl.swap.form.STALLED = 1.0")
    assert asyncio.run(upload(lab, last=False, sized=True, pieces=0))[0] == 200, "it is loaded now"
    status, answer, _ = asyncio.run(upload(lab, last=False, sized=True, pieces=1, pause=3))
    assert status == 408
    assert "nothing more of the form came" in answer["error"]["message"]
    assert lab.ask("ant") == sentence("ant")


def test_figures_of_every_kind(lab: Bench) -> None:
    """Media are counted as all requests are; tokens where a server tells of them, by whatever name."""
    lab.gateway(config(lab))
    httpx.post(f"{lab.url}/v1/responses", json={"model": "ant", "input": "hi"}, timeout=60)
    speech = httpx.post(f"{lab.url}/v1/audio/speech", json={"model": "voice", "input": "hi", "voice": "x"}, timeout=60)
    assert speech.content == standin.SOUND
    figures = httpx.get(f"{lab.url}/metrics").text
    assert 'labctl_requests_total{model="voice",server="voice",status="200"} 1.0' in figures
    assert 'labctl_tokens_total{kind="completion",model="ant"} 3.0' in figures
    assert 'labctl_tokens_total{kind="prompt",model="ant"} ' in figures
    line = json.loads(lab.log().splitlines()[-1].removeprefix("INFO "))
    assert {"id", "path", "model", "server", "status", "waited", "seconds", "key"} <= line.keys()
