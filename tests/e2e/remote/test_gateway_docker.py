"""The swap-box example on a real host: the gateway in a container of its own starts and stops twelve others.

What is not what it is on the machine that the example describes: the card (/dev/dri holds a null device), the image
`python`, which is Debian with pip and a folder of wheels in place of PyPI, and the weights.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from labctl.quantity import GIB
from tests.e2e.place import chat
from tests.e2e.remote.gateways import HOST, Lab, example, observed, sentence
from tests.e2e.remote.home import until
from tests.rig.rig import Rig, joined

pytestmark = pytest.mark.slow
SIZES = {
    "gpt-oss-120b": 66,
    "qwen3-coder-30b": 32,
    "dolphin-mistral-24b": 24,
    "dolphin-mistral-24b-fast": 19,
    "qwen3-30b-thinking": 45,
    "qwen3-30b-instruct": 45,
    "gpt-oss-20b": 15,
    "gpt-oss-20b-neoplus": 25,
    "gpt-oss-20b-code-di": 25,
    "huihui-qwen3-vl-30b": 33,
    "jamba-reasoning-3b": 7,
    "lfm2-8b-a1b": 9,
}
"""GiB of the card."""
NOBODY_THERE = {"ConnectError", "ReadError", "RemoteProtocolError"}
"""How a client sees that the gateway itself has ended."""
BIG, RIVAL, SMALL = "gpt-oss-120b", "qwen3-30b-thinking", "lfm2-8b-a1b"
MEMORY = {name: size * GIB for name, size in SIZES.items()}
BUDGET = 96 * GIB


@pytest.fixture(scope="module")
def machines(request: pytest.FixtureRequest) -> Rig:
    return joined(request.config, hosts=1)


def overlay(rig: Rig) -> dict[str, Any]:
    """Return what the rig's host has instead of a Strix Halo with 600 GB of models."""
    files: dict[str, Any] = {name: {"gguf": None, "tiny": {"says": sentence(name)}} for name in SIZES}
    files["gpt-oss-120b"]["facts"] = None
    files["huihui-qwen3-vl-30b"]["projector"] = None
    # heads of 16 elements are too small for a quantised cache
    deployments: dict[str, Any] = {
        n: {"vram": {"declared": f"{size} GiB"}, "kv_cache": "f16"} for n, size in SIZES.items()
    }
    deployments[SMALL]["mlock"] = False  # inside the rig nobody may raise a limit
    return {
        "hosts": {"halo": {"address": rig.address(HOST), "ssh": {"user": "lab"}, "models": "/var/lib/labctl/models"}},
        "models": files,
        "deployments": deployments,
        "images": {"mirror": rig.registry},
    }


@pytest.fixture(scope="module")
def before(rig: Rig) -> set[str]:
    return leftovers(rig)


@pytest.fixture(scope="module")
def lab(rig: Rig, before: set[str]) -> Iterator[Lab]:
    del before  # what was there is looked at first
    rig.sh(HOST, "mkdir -p /dev/dri; [ -e /dev/dri/renderD128 ] || mknod /dev/dri/renderD128 c 1 3")
    with example(rig, "swap-box", overlay(rig), 8888) as made:
        made.ok("apply", "--yes")
        yield made
    rig.sh(HOST, "rm -r /dev/dri")


def leftovers(rig: Rig) -> set[str]:
    """Return what a lab leaves on a host: containers, networks, volumes, files, and the image that was built there."""
    script = (
        "docker ps --all --format 'container {{.Names}}'; docker network ls --format 'network {{.Name}}';"
        "docker volume ls --format 'volume {{.Name}}'; docker images --format '{{.Repository}}' | grep labctl || true;"
        "find /opt /var/lib/labctl /etc/labctl ! -type d 2>/dev/null || true"
    )
    return set(rig.sh(HOST, script).splitlines())


def containers(lab: Lab) -> dict[str, dict[str, Any]]:
    """Return what Docker knows of the lab's containers, by name."""
    found = json.loads(lab.sh("docker inspect $(docker ps --all --quiet --filter label=labctl.lab=swap-box)"))
    return {c["Name"].removeprefix("/swap-box-"): c for c in found}


def made(lab: Lab) -> dict[str, str]:
    """Return when each container was made: another time is another container."""
    return {name: f"{c['Id']} {c['Created']}" for name, c in containers(lab).items()}


def started(lab: Lab, name: str) -> str:
    """Return when a container was started last."""
    return str(containers(lab)[name]["State"]["StartedAt"])


def running(lab: Lab) -> set[str]:
    return {name for name, c in containers(lab).items() if c["State"]["Running"]} - {"gateway"}


def test_every_container_is_made_and_only_the_gateway_runs(lab: Lab) -> None:
    found = containers(lab)
    assert found.keys() == {*SIZES, "gateway"}
    assert running(lab) == set()
    assert lab.phases() == dict.fromkeys(SIZES, "stopped")


def test_the_gateway_alone_has_the_socket_and_nothing_else(lab: Lab) -> None:
    found = containers(lab)
    assert [n for n, c in found.items() if any("docker.sock" in m["Source"] for m in c["Mounts"])] == ["gateway"]
    rights = found["gateway"]["HostConfig"]
    assert (rights["Privileged"], rights["ReadonlyRootfs"], rights["CapDrop"]) == (False, True, ["ALL"])
    assert "no-new-privileges:true" in rights["SecurityOpt"]
    assert lab.sh("docker exec swap-box-gateway grep -E 'Cap(Eff|Prm|Bnd)|NoNewPrivs' /proc/1/status").split() == [
        *("CapPrm:", "0" * 16, "CapEff:", "0" * 16, "CapBnd:", "0" * 16),
        *("NoNewPrivs:", "1"),
    ]
    written = lab.sh("docker exec swap-box-gateway touch /srv/labctl/more 2>&1", check=False)
    assert "Read-only file system" in written


def test_each_model_answers_for_itself_and_no_two_fight(lab: Lab) -> None:
    """All twelve in turn: as many stay as fit, the same containers all along, and never more than the card has."""
    before = made(lab)
    with observed("swap-box-") as seen:
        for name in SIZES:
            assert lab.chat(name) == sentence(name)
            assert name in running(lab)
    assert made(lab) == before
    assert seen.most(MEMORY) <= BUDGET
    assert max(len(names - {"gateway"}) for names in seen.seen) >= 3, "what fits stays"


def test_what_the_gateway_does_is_no_change(lab: Lab) -> None:
    up, before = running(lab), made(lab)
    assert up, "something is loaded that was not when the lab was applied"
    assert "no changes" in lab.ok("apply", "--yes").out
    assert (running(lab), made(lab)) == (up, before)
    lab.ok("status")


def test_a_stream_comes_piece_by_piece(lab: Lab) -> None:
    body = {**chat(SMALL), "stream": True}
    with httpx.stream("POST", f"{lab.url}/v1/chat/completions", json=body, timeout=60) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        lines = [line.removeprefix("data: ") for line in response.iter_lines() if line]
    assert lines[-1] == "[DONE]"
    deltas = [choice["delta"] for line in lines[:-1] for choice in json.loads(line)["choices"]]
    assert "".join(delta.get("content") or "" for delta in deltas) == sentence(SMALL)
    assert len(deltas) > 2


def test_a_long_form_passes_through_a_container_that_writes_nothing(lab: Lab) -> None:
    """Its model stands at its end, so all of it is kept first. The answer is llama.cpp's own: it hears nothing."""
    form: list[Any] = [("file", ("sound.wav", b"\0" * (3 << 20))), ("model", (None, SMALL))]
    answer = httpx.post(f"{lab.url}/v1/audio/transcriptions", files=form, timeout=60)
    assert (answer.status_code, "does not support audio" in answer.text) == (501, True), answer.text


def test_who_leaves_while_his_model_loads_keeps_nobody_waiting(lab: Lab) -> None:
    lab.chat(BIG)
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{lab.url}/v1/chat/completions", json=chat(RIVAL), timeout=0.2)
    assert lab.chat(SMALL) == sentence(SMALL)
    until(lambda: "starting" not in lab.phases().values())
    state = lab.state()
    assert state["queue"]["length"] == 0
    assert not any(server["busy"] for server in state["servers"])


def test_a_herd_for_models_that_do_not_fit_together(lab: Lab) -> None:
    names = [(BIG, RIVAL, SMALL)[i % 3] for i in range(30)]
    with observed("swap-box-") as seen, ThreadPoolExecutor(30) as pool:
        assert list(pool.map(lab.chat, names)) == [sentence(name) for name in names]
    assert seen.most(MEMORY) <= BUDGET


class Clients:
    """People who ask again and again until they are told to stop; every answer, or how it failed, is kept."""

    def __init__(self, lab: Lab, names: tuple[str, ...]) -> None:
        self._lab, self._names = lab, names
        self._over = threading.Event()
        self.found: list[tuple[str, str]] = []
        self._pool = ThreadPoolExecutor(len(names))
        self._work: list[Future[None]] = []

    def __enter__(self) -> Clients:
        self._work = [self._pool.submit(self._ask, name) for name in self._names]
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for work in self._work:
            work.result(120)

    def _ask(self, name: str) -> None:
        while not self._over.is_set():
            self.found.append((name, outcome(lambda: self._lab.post(name))))
            time.sleep(0.05)

    def since(self, count: int) -> list[str]:
        return [what for _, what in self.found[count:]]


def outcome(ask: Callable[[], httpx.Response]) -> str:
    """Return what came of a request: its answer, its error's status, or ``refused`` when there was nobody to ask."""
    try:
        response = ask()
    except httpx.TransportError as error:
        return type(error).__name__
    if response.status_code == 200:
        return str(response.json()["choices"][0]["message"]["content"])
    assert response.json()["error"]["message"], "an error is OpenAI's"
    assert "retry-after" in response.headers or response.status_code != 503
    return str(response.status_code)


def settled(clients: Clients, answers: Mapping[str, str]) -> None:
    """Wait until everybody was answered again since now."""
    count = len(clients.found)
    until(lambda: set(answers.values()) <= set(clients.since(count)), 60)


@contextmanager
def live_restore(lab: Lab) -> Iterator[None]:
    """Let containers outlive the engine (daemon.json's ``live-restore``), and put it back."""
    settings = "/etc/docker/daemon.json"
    lab.sh(f"cp {settings} /run/; sed -i 's/^{{/{{\"live-restore\": true, /' {settings}; systemctl reload docker")
    try:
        yield
    finally:
        lab.sh(f"mv /run/daemon.json {settings}; systemctl reload docker")


def test_docker_restarts_under_load(lab: Lab) -> None:
    """All containers stop with it. Who was in is answered, the gateway comes back by itself and goes on."""
    answers = {name: sentence(name) for name in (BIG, RIVAL, SMALL)}
    before = made(lab)
    with observed("swap-box-") as seen, Clients(lab, tuple(answers) * 3) as clients:
        settled(clients, answers)
        lab.sh("systemctl restart docker")
        settled(clients, answers)
    assert made(lab) == before
    assert seen.most(MEMORY) <= BUDGET
    assert {what for name, what in clients.found if what != answers[name]} <= {"503", *NOBODY_THERE}


def test_docker_restarts_beside_what_goes_on(lab: Lab) -> None:
    """With live-restore no server stops. For a moment Docker itself takes away the way to the published port."""
    answers = {name: sentence(name) for name in (BIG, SMALL)}
    with live_restore(lab), Clients(lab, tuple(answers) * 3) as clients:
        settled(clients, answers)
        before = {name: started(lab, name) for name in ("gateway", *answers)}
        lab.sh("systemctl restart docker")
        settled(clients, answers)
    assert {name: started(lab, name) for name in before} == before
    assert {what for name, what in clients.found if what != answers[name]} <= {"ConnectError"}


def test_the_gateway_is_killed_with_a_full_queue(lab: Lab) -> None:
    """The queue is lost, with an error for everybody who was in it; the next gateway finds what runs."""
    lab.chat(BIG)
    before = started(lab, BIG)
    lab.sh(f"docker pause swap-box-{BIG}")
    with ThreadPoolExecutor(60) as pool:
        asked = [pool.submit(outcome, lambda: lab.post(BIG)) for _ in range(60)]
        until(lambda: sum(work.done() for work in asked) >= 9)
        assert httpx.get(f"{lab.url}/health").json()["queue"] == {"length": 50, "capacity": 50}
        lab.sh("kill -KILL $(docker inspect --format '{{.State.Pid}}' swap-box-gateway)")
        found = [work.result(60) for work in asked]
    assert found.count("503") == 9
    assert len([what for what in found if what in NOBODY_THERE]) == 51
    lab.sh(f"docker unpause swap-box-{BIG}")
    until(lambda: outcome(lambda: lab.post(BIG)) == sentence(BIG))
    assert started(lab, BIG) == before


def test_what_was_changed_by_hand_is_shown_and_put_back(lab: Lab) -> None:
    before = made(lab)
    gone = next(name for name, phase in lab.phases().items() if phase == "stopped")
    lab.sh(f"docker rm --force swap-box-{gone}")
    refused = lab.post(gone)
    assert refused.status_code == 503
    assert "there is no such container; run `labctl apply`" in refused.json()["error"]["message"]
    lab.sh("docker stop swap-box-gateway")
    assert containers(lab)["gateway"]["State"]["ExitCode"] == 0, "to end when told to is no failure"
    assert lab.todo() == {f"create {gone}", "start gateway"}
    lab.ok("apply", "--yes")
    after = made(lab)
    assert {name for name in before if before[name] != after[name]} == {gone}
    assert lab.chat(gone) == sentence(gone)


def test_destroyed_it_leaves_nothing(lab: Lab, before: set[str]) -> None:
    lab.ok("destroy", "--yes", "--data")
    assert leftovers(lab.home.rig) - before == set()
