"""The gateway in front of real llama.cpp servers that a real supervisord starts and stops."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.swap.bench import GIB, Bench, Observer, bench, sentence

for module in ("xllamacpp", "supervisor"):
    pytest.importorskip(module, reason=f"{module} is not installed: no real servers to run")

pytestmark = pytest.mark.slow


@pytest.fixture
def three() -> Iterator[Bench]:
    """Three models of which two fit."""
    with bench(["ant", "bee", "cow"]) as it:
        yield it


def test_two_of_three_fit(three: Bench) -> None:
    """Each answers for itself; never more than two processes, as supervisord sees it."""
    three.gateway(three.config())
    with Observer(three) as seen:
        for name in ("ant", "bee", "ant", "bee", "cow", "cow", "ant"):
            assert three.ask(name) == sentence(name)
    assert seen.most == 2
    figures = httpx.get(f"{three.url}/metrics").text
    assert 'labctl_loads_total{server="cow"} 1.0' in figures
    loads = sum(float(line.split()[-1]) for line in figures.splitlines() if line.startswith("labctl_loads_total"))
    assert loads <= 4


def test_a_herd_in_turn(three: Bench) -> None:
    """Sixty clients ask for three models in turn at once: all are answered, within the budget, with few loads."""
    three.gateway(three.config(queue=100, patience=600))  # however slow this machine is today
    names = [three.names[i % 3] for i in range(60)]
    with Observer(three) as seen, ThreadPoolExecutor(60) as pool:
        answers = list(pool.map(three.ask, names))
    assert answers == [sentence(name) for name in names]
    assert seen.most <= 2
    loads = [line for line in httpx.get(f"{three.url}/metrics").text.splitlines() if "labctl_loads_total{" in line]
    assert sum(float(line.split()[-1]) for line in loads) <= 4, loads


def test_streams_arrive_piece_by_piece(three: Bench) -> None:
    """A stream is passed on as it comes, and ends with the server's own last line."""
    three.gateway(three.config())
    body = {"model": "ant", "stream": True, "messages": [{"role": "user", "content": "hi"}]}
    with httpx.stream("POST", f"{three.url}/v1/chat/completions", json=body, timeout=60) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        lines = [line for line in response.iter_lines() if line]
    assert lines[-1] == "data: [DONE]"
    text = "".join(
        choice["delta"].get("content") or ""
        for line in lines[:-1]
        for choice in json.loads(line.removeprefix("data: "))["choices"]
    )
    assert text.strip() == sentence("ant")


def test_a_server_that_is_killed_is_started_again(three: Bench) -> None:
    """The next request gets its answer, although the server had died."""
    three.gateway(three.config())
    assert three.ask("ant") == sentence("ant")
    three.call("signalProcess", "ant", "KILL")
    assert three.ask("ant") == sentence("ant")


def test_one_that_cannot_start_is_named() -> None:
    """503 with the server's name and Retry-After; the others go on."""
    with bench(["ant", "bad"], broken=["bad"]) as it:
        it.gateway(it.config())
        body = {"model": "bad", "messages": []}
        begun = time.monotonic()
        response = httpx.post(f"{it.url}/v1/chat/completions", json=body, timeout=60)
        assert response.status_code == 503
        assert time.monotonic() - begun < 15, "it is told when the server has ended, not after its whole start-up time"
        assert "bad" in response.json()["error"]["message"]
        assert int(response.headers["retry-after"]) >= 1
        assert it.ask("ant") == sentence("ant")


def test_a_new_gateway_finds_what_runs(three: Bench) -> None:
    """Killed and started again, the gateway goes on with the servers that run, and stops none of them."""
    config = three.config()
    first = three.gateway(config)
    three.ask("ant")
    pid = next(p["pid"] for p in three.call("getAllProcessInfo") if p["name"] == "ant")
    first.send_signal(signal.SIGKILL)
    first.wait()
    three.gateway(config)
    assert three.ask("ant") == sentence("ant")
    assert next(p["pid"] for p in three.call("getAllProcessInfo") if p["name"] == "ant") == pid


def test_a_full_queue_says_so() -> None:
    """One more than may wait is answered 503 at once; those that wait are answered."""
    with bench(["ant", "bee"]) as it:
        it.gateway(it.config(cards={"gpu": 4 * GIB}, queue=3))
        with ThreadPoolExecutor(12) as pool:
            body = {"model": "ant", "messages": [{"role": "user", "content": "hi"}]}
            url = f"{it.url}/v1/chat/completions"
            found = list(pool.map(lambda _: httpx.post(url, json=body, timeout=60).status_code, range(12)))
        assert found.count(200) >= 3
        assert found.count(200) + found.count(503) == 12
        assert found.count(503) >= 1


def test_who_leaves_frees_his_place(three: Bench) -> None:
    """Half of the clients leave; the others are answered, and nothing is left over."""
    three.gateway(three.config(queue=100))

    def impatient(number: int) -> str:
        name = three.names[number % 3]
        try:
            timeout = 0.3 if number % 2 else 60
            body = {"model": name, "messages": [{"role": "user", "content": "hi"}]}
            response = httpx.post(f"{three.url}/v1/chat/completions", json=body, timeout=timeout)
        except httpx.TimeoutException:
            return "left"
        return str(response.status_code)

    with ThreadPoolExecutor(40) as pool:
        found = list(pool.map(impatient, range(40)))
    assert set(found) <= {"200", "left"}
    assert found.count("200") >= 20
    time.sleep(0.5)
    state = httpx.get(f"{three.url}/api/state").json()
    assert state["queue"]["length"] == 0
    assert all(server["busy"] == 0 for server in state["servers"])


def test_the_openai_client(three: Bench) -> None:
    """The client that everybody uses: models, chat, stream, and an error that it understands."""
    openai = pytest.importorskip("openai")
    three.gateway(three.config())
    client = openai.OpenAI(base_url=f"{three.url}/v1", api_key="none", max_retries=0)
    assert [m.id for m in client.models.list()] == list(three.names)
    messages = [{"role": "user", "content": "hi"}]
    said = client.chat.completions.create(model="bee", messages=messages)
    assert said.choices[0].message.content.strip() == sentence("bee")
    pieces = client.chat.completions.create(model="bee", messages=messages, stream=True)
    assert "".join(p.choices[0].delta.content or "" for p in pieces if p.choices).strip() == sentence("bee")
    with pytest.raises(openai.NotFoundError, match="there is no model 'dog'"):
        client.chat.completions.create(model="dog", messages=messages)
