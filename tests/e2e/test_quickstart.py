"""The quickstart with everything real: applied, asked, hurt, repaired, destroyed; each test goes on from the last."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import pytest

from labctl.diagnostics import ExitCode
from tests.e2e.place import Place, ask, chat, is_free, place, said
from tests.embedded.servers import free_port
from tests.examples.labs import EXAMPLES

pytestmark = pytest.mark.slow
pytest.importorskip("prisma", reason="prisma is not installed: LiteLLM would answer 500 to a missing key")
pytest.importorskip("litellm", reason="LiteLLM is not installed")

ALPHA, BETA = "I am alpha", "Greetings from beta"
PORTS = re.compile(r"(?<=port: )\d+")


def moved(text: str) -> str:
    """Return the lab with free ports."""
    return PORTS.sub(lambda _: str(free_port()), text)


@dataclass(frozen=True, slots=True)
class Running:
    """The quickstart after ``labctl apply --yes``."""

    place: Place
    url: str
    key: str
    ports: tuple[int, ...]
    printed: str

    def ask(self, path: str, body: dict[str, object] | None = None) -> httpx.Response:
        return ask(self.url, self.key, path, body)


@pytest.fixture(scope="module")
def lab() -> Iterator[Running]:
    text = moved((EXAMPLES / "quickstart" / "lab.yaml").read_text())
    with place(text) as home:
        printed = home.ok("apply", "--yes").out
        endpoint = re.search(r"endpoint +(\S+)/v1\n", printed)
        assert endpoint, printed
        key = home.key_file.read_text().strip().partition("=")[2]
        yield Running(home, endpoint[1], key, tuple(map(int, PORTS.findall(text))), printed)


def test_apply_says_where_it_answers_and_shows_no_key(lab: Running) -> None:
    assert lab.url.endswith(str(lab.ports[-1]))
    assert str(lab.place.key_file) in lab.printed
    assert lab.key.startswith("sk-")
    assert lab.key not in lab.printed
    assert lab.place.key_file.stat().st_mode & 0o077 == 0


def test_the_printed_request_works(lab: Running) -> None:
    command = lab.printed.partition("try")[2].strip()
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True)
    assert re.search(f"{ALPHA}|{BETA}", json.loads(done.stdout)["choices"][0]["message"]["content"])


def test_each_model_says_who_it_is(lab: Running) -> None:
    assert ALPHA in said(lab.ask("/v1/chat/completions", chat("alpha")))
    assert BETA in said(lab.ask("/v1/chat/completions", chat("beta")))


def test_streaming(lab: Running) -> None:
    headers = {"Authorization": f"Bearer {lab.key}"}
    body = {**chat("alpha"), "stream": True}
    with httpx.stream("POST", f"{lab.url}/v1/chat/completions", json=body, headers=headers, timeout=60) as answer:
        data = [line[6:] for line in answer.iter_lines() if line.startswith("data: ")]
    assert data[-1] == "[DONE]"
    deltas = [json.loads(line)["choices"][0]["delta"].get("content") or "" for line in data[:-1]]
    assert len([delta for delta in deltas if delta]) > 3
    assert ALPHA in "".join(deltas)


def test_embeddings(lab: Running) -> None:
    answer = lab.ask("/v1/embeddings", {"model": "embed", "input": ["one text", "another"]})
    assert answer.status_code == 200, answer.text
    assert [len(entry["embedding"]) for entry in answer.json()["data"]] == [64, 64]


def test_the_list_of_models(lab: Running) -> None:
    names = {entry["id"] for entry in lab.ask("/v1/models").json()["data"]}
    assert names >= {"alpha", "beta", "chat", "embed", "gpt-4o-mini"}


@pytest.mark.parametrize("key", ["sk-wrong", None])
def test_a_wrong_or_missing_key_is_refused(lab: Running, key: str | None) -> None:
    assert ask(lab.url, key, "/v1/chat/completions", chat("alpha")).status_code == 401
    assert ask(lab.url, key, "/v1/models").status_code == 401


def test_both_servers_answer_to_the_shared_name_and_its_alias(lab: Running) -> None:
    for name in ("chat", "gpt-4o-mini"):
        answers = [said(lab.ask("/v1/chat/completions", chat(name))) for _ in range(20)]
        assert {ALPHA in answer for answer in answers} == {True, False}
        assert all(ALPHA in answer or BETA in answer for answer in answers)


def test_a_second_apply_changes_nothing(lab: Running) -> None:
    before = lab.place.programs()
    assert set(before) == {"alpha", "beta", "letters", "gateway"}
    assert "no changes" in lab.place.ok("apply", "--yes").out
    assert lab.place.ok("plan", "--detailed-exitcode").code == ExitCode.OK
    assert lab.place.programs() == before


def test_a_killed_server_costs_no_request(lab: Running) -> None:
    """First killed, whereupon supervisord starts it anew, then stopped for good; ``apply`` brings it back."""
    os.kill(lab.place.programs()["alpha"][0], signal.SIGKILL)
    answers = [said(lab.ask("/v1/chat/completions", chat("chat"))) for _ in range(20)]
    lab.place.supervisor()("stopProcess", "alpha")
    answers += [said(lab.ask("/v1/chat/completions", chat("chat"))) for _ in range(20)]
    assert all(BETA in answer for answer in answers[20:])
    assert all(ALPHA in answer or BETA in answer for answer in answers[:20])
    assert lab.place.run("status").code == ExitCode.ERROR
    before = lab.place.programs()
    assert lab.place.changes() == [("unit", "alpha", "start")]
    lab.place.ok("apply", "--yes")
    after = lab.place.programs()
    assert {name: after[name] for name in before} == before
    assert lab.place.ok("status").code == ExitCode.OK


def test_drift_is_shown_and_put_right_even_when_apply_is_killed(lab: Running) -> None:
    config = lab.place.root / "gateway/config.yaml"
    good = config.read_text()
    config.write_text(good.replace("num_retries: 2", "num_retries: 7"))
    plan = lab.place.run("plan", "--detailed-exitcode", "--diff")
    assert plan.code == ExitCode.CHANGES
    assert "num_retries: 7" in plan.out
    before = lab.place.programs()
    planned = [("file", "gateway/config.yaml", "update"), ("unit", "gateway", "restart")]
    assert lab.place.changes() == planned
    with lab.place.spawn("apply", "--yes", "--json") as killed:
        assert killed.stdout is not None
        for line in killed.stdout:
            event = json.loads(line)
            if event["event"] == "ChangeStarted" and event["kind"] == "unit":
                break
        killed.kill()
    lab.place.ok("apply", "--yes")
    assert config.read_text() == good
    after = lab.place.programs()
    assert {name for name in before if after[name] != before[name]} == {"gateway"}
    assert lab.place.run("plan", "--detailed-exitcode").code == ExitCode.OK
    assert ALPHA in said(lab.ask("/v1/chat/completions", chat("alpha")))


def test_logs_and_state_hold_no_key(lab: Running) -> None:
    assert "alpha" in lab.place.ok("logs", "alpha").out
    assert lab.key not in lab.place.ok("logs", "gateway", "--lines", "10000").out
    assert lab.key not in lab.place.ok("plan", "--json").out
    kept = set((lab.place.root / "state/generations").rglob("secret-*"))  # what a rollback brings back
    assert kept
    secret = {lab.place.key_file, lab.place.root / "secrets/gateway.env", *kept}
    holders = {p for p in lab.place.folder.rglob("*") if p.is_file() and lab.key.encode() in p.read_bytes()}
    assert holders == secret
    assert {p.stat().st_mode & 0o777 for p in holders} == {0o600}


def test_destroy_leaves_nothing(lab: Running) -> None:
    plan = lab.place.changes()
    assert plan == []
    assert "nothing of it is left" in lab.place.ok("destroy", "--yes", "--data").err
    assert lab.place.processes() == {}
    assert lab.place.files() == []
    assert all(is_free(port) for port in lab.ports)
    assert lab.place.run("status").code == ExitCode.ERROR
