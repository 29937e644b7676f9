"""Real LiteLLM with the rendered configuration, in front of real llama.cpp servers that each say who they are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
import pytest

from labctl.gateways import Linked
from labctl.gateways.litellm import gateway
from labctl.tiny import embedding, scripted
from labctl.workload import Endpoint, Native, SecretText, Task
from tests.embedded.servers import Running, free_port, llama, running
from tests.gateways.labs import ask, endpoint

pytestmark = pytest.mark.slow
pytest.importorskip("xllamacpp", reason="xllamacpp is not installed: no real llama.cpp")
pytest.importorskip("prisma", reason="prisma is not installed: LiteLLM would answer 500 to a missing key")
pytest.importorskip("tests.gateways.strict", reason="LiteLLM is not installed", exc_type=ImportError)

KEY = "sk-live-test-1234"
FIRST, SECOND = "This is the first server.", "Here speaks the second one."


@dataclass(frozen=True, slots=True)
class Lab:
    """What runs during the tests of this module."""

    gateway: Running
    first: Running
    second: Running


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    folder = tmp_path_factory.mktemp("lab")
    for name, data in (("a", scripted(FIRST)), ("b", scripted(SECOND)), ("e", embedding())):
        (folder / f"{name}.gguf").write_bytes(data)
    with ExitStack() as stack:
        first = stack.enter_context(llama(folder / "a.gguf", "-np", "2"))
        second = stack.enter_context(llama(folder / "b.gguf", "-np", "2"))
        embed = stack.enter_context(llama(folder / "e.gguf", "--embeddings", "-c", "512"))
        proxy = stack.enter_context(started(folder, links(first.url, second.url, embed.url)))
        yield Lab(proxy, first, second)


def links(first: str, second: str, embed: str) -> tuple[Linked, ...]:
    dead = f"http://127.0.0.1:{free_port()}"

    def link(url: str, name: str, *serves: str, task: Task = Task.CHAT, rpm: int | None = None) -> Linked:
        found: Endpoint = endpoint(name, *serves, task=task, rpm=rpm, timeout=30)
        return Linked(found, url)

    return (
        link(first, "a", "assistant", "org/Assistant-7B"),
        link(second, "b", "assistant", "org/Assistant-7B"),
        link(first, "l1", "limited", rpm=3),
        link(second, "l2", "limited", rpm=2),
        link(embed, "e", "embed", task=Task.EMBED),
        link(first, "c", "complete", task=Task.COMPLETE),
        link(dead, "d", "dead"),
        link(dead, "d2", "dead-alone"),
    )


def started(folder: Path, linked: tuple[Linked, ...]) -> AbstractContextManager[Running]:
    asked = ask(
        aliases={"gpt": "assistant", "dead-alias": "dead"},
        fallbacks={"dead-alias": ["gpt"]},
        retries=0,  # so that a dead server is only survived by trying its siblings, not by luck
        cooldown={"after_fails": 1, "for": "5 s"},
        parallel=8,
        timeout="30 s",
        pass_through=[{"path": "/embed-raw", "to": "embed"}],
    )
    (workload,) = gateway.workloads(replace(asked, endpoints=linked))
    for file in workload.files:
        (folder / file.name).write_text(file.content)
    env = {k: KEY if isinstance(v, SecretText) else v for k, v in workload.env.items()}
    form = workload.forms[-1]
    assert isinstance(form, Native)
    assert form.args[1] == "labctl.embedded.litellm_proxy"
    log = folder / "litellm.log"
    return running(
        form.args[1],
        "--config",
        str(folder / "config.yaml"),
        health="/health/liveliness",
        log=log,
        patience=150,
        env=env,
    )


def test_lists_every_public_name(lab: Lab) -> None:
    answer = httpx.get(f"{lab.gateway.url}/v1/models", headers={"Authorization": f"Bearer {KEY}"}, timeout=30)
    names = {entry["id"] for entry in answer.json()["data"]}
    assert {"assistant", "org/Assistant-7B", "gpt", "embed", "limited"} <= names


def test_both_servers_answer_under_every_name(lab: Lab) -> None:
    said = Counter(lab.gateway.say("assistant", KEY) for _ in range(16))
    assert set(said) == {FIRST, SECOND}
    assert {lab.gateway.say(name, KEY) for name in ("gpt", "org/Assistant-7B")} <= {FIRST, SECOND}


def test_an_id_reaches_one_server(lab: Lab) -> None:
    assert {lab.gateway.say("assistant@b", KEY) for _ in range(4)} == {SECOND}


def test_streams(lab: Lab) -> None:
    pieces = lab.gateway.stream("assistant", KEY)
    assert "".join(pieces) in {FIRST, SECOND}
    assert len([piece for piece in pieces if piece]) > 2


def test_embeds(lab: Lab) -> None:
    answer = lab.gateway.ask("/v1/embeddings", {"model": "embed", "input": ["one", "two"]}, KEY)
    assert [len(row["embedding"]) for row in answer.json()["data"]] == [64, 64]


def test_hands_paths_on(lab: Lab) -> None:
    answer = lab.gateway.ask("/embed-raw", {"input": "one"}, KEY)
    assert len(answer.json()["data"][0]["embedding"]) == 64
    assert lab.gateway.ask("/embed-raw", {"input": "one"}, "sk-wrong").status_code == 401


def test_completes(lab: Lab) -> None:
    answer = lab.gateway.ask("/v1/completions", {"model": "complete", "prompt": "Say it:"}, KEY)
    assert answer.json()["choices"][0]["text"] == FIRST


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer sk-wrong"}])
def test_no_key_no_answer(lab: Lab, headers: dict[str, str]) -> None:
    body = {"model": "assistant", "messages": [{"role": "user", "content": "hi"}]}
    answer = httpx.post(f"{lab.gateway.url}/v1/chat/completions", json=body, headers=headers, timeout=30)
    assert answer.status_code == 401


def test_limits_are_those_of_the_group(lab: Lab) -> None:
    body = {"model": "limited", "messages": [{"role": "user", "content": "hi"}]}
    answers = [lab.gateway.ask("/v1/chat/completions", body, KEY) for _ in range(14)]
    codes = Counter(answer.status_code for answer in answers)
    assert set(codes) == {200, 429}
    refused = [answer.text for answer in answers if answer.status_code == 429]
    assert all("rate limit exceeded" in text for text in refused), "the servers were put aside for being popular"
    assert 5 <= codes[200] <= 10, "five in a minute, and the minute may change once meanwhile"


@pytest.mark.parametrize("name", ["dead-alias", "dead"])
def test_falls_back_by_alias_and_by_name(lab: Lab, name: str) -> None:
    assert lab.gateway.say(name, KEY) in {FIRST, SECOND}


def test_a_lonely_dead_server_is_an_error_of_the_server_each_time(lab: Lab) -> None:
    body = {"model": "dead-alone", "messages": [{"role": "user", "content": "hi"}]}
    codes = {lab.gateway.ask("/v1/chat/completions", body, KEY).status_code for _ in range(4)}
    assert codes == {500}, "429 would mean that the only server was put aside"


def test_zz_one_server_killed_and_every_request_answered(lab: Lab) -> None:
    lab.second.process.kill()
    lab.second.process.wait()
    assert {lab.gateway.say("assistant", KEY) for _ in range(40)} == {FIRST}
