"""Things that go wrong with servers, each with real llama.cpp under a real supervisord: somebody is always told."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.swap.bench import GIB, Bench, Observer, bench, sentence

for module in ("xllamacpp", "supervisor"):
    pytest.importorskip(module, reason=f"{module} is not installed: no real servers to run")

pytestmark = pytest.mark.slow

FROZEN = "kill -STOP $$; exec {server}"
"""A server that hangs before it does anything, until somebody sends SIGCONT."""
GREEDY = "ulimit -v 1500000; exec {server} --ctx-size 40000000"
"""A server whose context takes more memory than there is for it: it ends while it starts, and says so."""
LONG = {"stream": True, "ignore_eos": True, "max_tokens": 20_000}
"""Minutes of answer from a model that has one sentence to say."""


@pytest.fixture(scope="module")
def lab() -> Iterator[Bench]:
    """Two good servers, one that hangs at start and one that runs out of memory."""
    with bench(["ant", "bee", "frozen", "greedy"], commands={"frozen": FROZEN, "greedy": GREEDY}, context=65_536) as it:
        yield it


@pytest.fixture(autouse=True)
def fresh(lab: Bench) -> Iterator[None]:
    """Leave nothing to the next test."""
    yield
    lab.reset()


def config(lab: Bench, **changes: Any) -> dict[str, Any]:
    """Return a configuration: one server fits at a time, and one of them may not take longer than 2 s to start."""
    found = lab.config(cards={"gpu": 4 * GIB}, **changes)
    for backend in found["backends"]:
        backend["startup"] = {"frozen": 2, "greedy": 120}.get(backend["name"], 30)
    return found


def post(lab: Bench, model: str, **more: Any) -> httpx.Response:
    """Ask for a chat answer."""
    body = {"model": model, "messages": [{"role": "user", "content": "hi"}], **more}
    return httpx.post(f"{lab.url}/v1/chat/completions", json=body, timeout=60)


def pid(lab: Bench, name: str) -> int:
    """Return a server's process, as supervisord says."""
    return next(int(p["pid"]) for p in lab.call("getAllProcessInfo") if p["name"] == name)


def test_killed_in_the_middle_of_a_stream(lab: Bench) -> None:
    """The stream ends with an event that names the server; OpenAI's client raises it; the next request is answered."""
    openai = pytest.importorskip("openai")
    lab.gateway(config(lab))
    client = openai.OpenAI(base_url=f"{lab.url}/v1", api_key="none", max_retries=0)
    messages = [{"role": "user", "content": "hi"}]
    pieces = client.chat.completions.create(
        model="ant", messages=messages, stream=True, max_tokens=20_000, extra_body={"ignore_eos": True}
    )
    said = ""
    with pytest.raises(openai.APIError, match="ant broke off its answer"):  # noqa: PT012
        for piece in pieces:
            if not said:
                lab.call("signalProcess", "ant", "KILL")
            said += piece.choices[0].delta.content or "."
    assert said
    assert lab.ask("ant") == sentence("ant")


def test_killed_in_the_middle_of_a_whole_answer(lab: Bench) -> None:
    """Nothing of it has come yet: the request is given to the server once more, and then to nobody."""
    lab.gateway(config(lab))
    assert lab.ask("ant") == sentence("ant")
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(post, lab, "ant", **{**LONG, "stream": False})
        for _ in range(2):
            _wait_busy(lab, "ant")
            os.kill(pid(lab, "ant"), signal.SIGKILL)
            _wait(lambda: not _slots(lab, "ant"))
        response = asked.result(30)
    assert response.status_code == 502
    assert response.json()["error"]["message"].startswith("ant cannot be reached")
    assert response.json()["error"]["code"] == "backend_unreachable"
    assert lab.ask("ant") == sentence("ant")


def test_hanging_at_start(lab: Bench) -> None:
    """All who wait are told after the start-up time; the next one at once; then it is tried again, and works."""
    lab.gateway(config(lab))
    with Observer(lab) as seen, ThreadPoolExecutor(5) as pool:
        answers = list(pool.map(lambda _: post(lab, "frozen"), range(5)))
        again = post(lab, "frozen")
        figures = httpx.get(f"{lab.url}/metrics").text
        assert lab.ask("ant") == sentence("ant"), "the others go on"
    for response in (*answers, again):
        assert response.status_code == 503
        assert "frozen" in response.json()["error"]["message"]
        assert "it was not ready after 2 s" in response.json()["error"]["message"]
        assert 1 <= int(response.headers["retry-after"]) <= 10
    assert 'labctl_failed_starts_total{server="frozen"} 1.0' in figures, "nobody has it started at once once more"
    assert seen.most == 1
    _wait(lambda: _server(lab, "frozen")["phase"] == "failed")
    time.sleep(float(again.headers["retry-after"]))
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(lab.ask, "frozen")
        _wait(lambda: "frozen" in lab.running())
        while not asked.done():
            lab.call("signalProcess", "frozen", "CONT")
            time.sleep(0.1)
        assert asked.result() == sentence("frozen")


def test_out_of_memory_at_start(lab: Bench) -> None:
    """Told when it ends, not after its start-up time; the log and the dashboard say its last words."""
    lab.gateway(config(lab))
    response = post(lab, "greedy")
    assert response.status_code == 503
    message = response.json()["error"]["message"]
    assert "greedy" in message
    assert "it ended while it was starting" in message
    words = (lab.folder / "greedy.log").read_text().strip().splitlines()[-1]
    assert words
    assert words in _server(lab, "greedy")["last_words"]
    assert words in lab.log()
    assert words not in message, "a server's log may say more than a stranger should know"
    assert lab.ask("ant") == sentence("ant")


def test_its_port_is_taken(lab: Bench) -> None:
    """Another program answers at a server's port: it is not taken for the server, and it is named."""
    lab.gateway(config(lab))
    with socket.create_server(("127.0.0.1", lab.ports["bee"])):
        response = post(lab, "bee")
        assert response.status_code == 503
        assert f"has its port {lab.ports['bee']}" in response.json()["error"]["message"]
        assert f"process {os.getpid()}" in response.json()["error"]["message"]
        assert "bee" not in lab.running()
        assert lab.ask("ant") == sentence("ant")
    time.sleep(float(response.headers["retry-after"]))
    assert lab.ask("bee") == sentence("bee")


JUMPS = """
import itertools, time
moments = itertools.cycle([0.0, 4e9, 1.7e9, 1.7e9 - 86400.0, 2**31 + 5.0, -5.0])
time.time = lambda: next(moments)
time.time_ns = lambda: int(time.time() * 1e9)
"""


def test_the_clock_jumps(lab: Bench) -> None:
    """By decades, forward and back, at each look: nothing is decided by the wall clock."""
    given = config(lab, patience=1)
    for backend in given["backends"]:
        backend["ttl"] = 3600
    lab.gateway(given, before=JUMPS)
    with Observer(lab) as seen:
        for name in ("ant", "ant", "bee", "ant"):
            assert lab.ask(name) == sentence(name)
        kept = pid(lab, "ant")
        assert lab.ask("ant") == sentence("ant")
    assert pid(lab, "ant") == kept, "idle for no hour, whatever the wall clock says"
    assert seen.most == 1
    records = httpx.get(f"{lab.url}/api/requests").json()
    assert all(0 <= r["seconds"] < 60 and 0 <= r["waited"] < 60 for r in records)
    assert len({r["at"] for r in records}) > 1, "the clock did jump"


def test_stopped_by_hand_while_it_answers(lab: Bench) -> None:
    """It answers to the end, and stops although nobody needs its room; then it is started again by who asks."""
    lab.gateway(config(lab))
    body = {"model": "ant", "messages": [{"role": "user", "content": "hi"}], **LONG, "max_tokens": 30}
    with httpx.stream("POST", f"{lab.url}/v1/chat/completions", json=body, timeout=60) as response:
        lines = response.iter_lines()
        next(lines)
        lab.call("signalProcess", "ant", "STOP")  # it is in the middle of its answer for as long as this test likes
        assert httpx.post(f"{lab.url}/api/servers/ant/stop").json()["phase"] == "draining"
        lab.call("signalProcess", "ant", "CONT")
        assert "data: [DONE]" in list(lines)
    _wait(lambda: "ant" not in lab.running())
    assert lab.ask("ant") == sentence("ant")


def _server(lab: Bench, name: str) -> dict[str, Any]:
    servers = httpx.get(f"{lab.url}/api/state").json()["servers"]
    return next(dict(s) for s in servers if s["name"] == name)


def _wait_busy(lab: Bench, name: str) -> None:
    _wait(lambda: _server(lab, name)["busy"] == 1 and any(slot["is_processing"] for slot in _slots(lab, name)))


def _slots(lab: Bench, name: str) -> list[dict[str, Any]]:
    try:
        found = httpx.get(f"{lab.server_url(name)}/slots")
    except httpx.TransportError:
        return []
    return list(found.json()) if found.status_code == 200 else []


def _wait(true: Any, patience: float = 30) -> None:
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        if true():
            return
        time.sleep(0.05)
    message = "it did not come true"
    raise AssertionError(message)
