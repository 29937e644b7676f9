"""The jetson example on a real host: systemd's units, and the gateway as one of them, which an ordinary user runs.

What is not what it is on the machine that the example describes: the processor and its card, llama.cpp (xllamacpp's
server under the name `llama-server`), and the weights. Two of the models are on demand here, so that there is something
to swap, and one more never gets ready.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import httpx
import pytest

from labctl.diagnostics import ExitCode
from tests.e2e.place import ask, chat
from tests.e2e.remote.gateways import HOST, Lab, example, sentence
from tests.e2e.remote.home import until
from tests.rig.rig import PROGRAM, Rig, joined

pytestmark = pytest.mark.slow
KEY = "sk-of-the-jetson"
ALWAYS = {"deepseek": "6 GiB", "qwen": "6 GiB", "qwen3-embedding": "7 GiB"}
SWAPPED = {"minicpm-v": "30 GiB", "qwen-vl": "30 GiB"}
TALK = ("deepseek", "qwen", *SWAPPED)
UNITS = "/etc/systemd/system"


@pytest.fixture(scope="module")
def machines(request: pytest.FixtureRequest) -> Rig:
    return joined(request.config, hosts=1)


def overlay(rig: Rig) -> dict[str, Any]:
    """Return what the rig's host has instead of a Jetson."""
    models: dict[str, Any] = {name: {"gguf": None, "tiny": {"says": sentence(name)}} for name in TALK}
    for name in SWAPPED:
        models[name]["projector"] = None
    models["qwen3-embedding"] = {"gguf": None, "tiny": {"dimensions": 32}}
    deployments: dict[str, Any] = {n: {"vram": {"declared": size}} for n, size in (ALWAYS | SWAPPED).items()}
    for name in SWAPPED:
        deployments[name]["start"] = "on-demand"
    placed = {"model": "qwen", "engine": "llama.cpp", "on": {"host": "orin", "gpus": "all"}, "port": 8086}
    asked = {"serves": ["stuck"], "start": "on-demand", "startup": "3 s", "vram": {"declared": "1 GiB"}}
    never = {"extra": {"systemd": {"Service": {"ExecStartPre": "/bin/sleep 1000"}}}}
    deployments["stuck"] = placed | asked | never
    return {
        "hosts": {"orin": {"address": rig.address(HOST), "ssh": {"user": "lab"}, "arch": "x86_64"}},
        "models": models,
        "deployments": deployments,
        "groups": {"unified": {"swap": [*SWAPPED, "stuck"]}},
        "gateway": {"python": "/usr/bin/python3"},
    }


@pytest.fixture(scope="module")
def before(rig: Rig) -> set[str]:
    return leftovers(rig)


@pytest.fixture(scope="module")
def lab(rig: Rig, before: set[str]) -> Iterator[Lab]:
    del before  # what was there is looked at first
    rig.sh(HOST, "getent group render || groupadd --system render")
    with example(rig, "jetson", overlay(rig), 9000, KEY) as made:
        made.ok("apply", "--yes")
        yield made


def leftovers(rig: Rig) -> set[str]:
    """Return what a lab leaves on a host: units, rules, files."""
    script = (
        "systemctl list-units --all 'labctl-*' --plain --no-legend;"
        f"find {UNITS} /etc/polkit-1 /etc/labctl /var/lib/labctl /home ! -type d 2>/dev/null || true"
    )
    return set(rig.sh(HOST, script).splitlines())


def unit(name: str) -> str:
    return f"labctl-jetson-{name}.service"


def processes(lab: Lab) -> dict[str, str]:
    """Return the main process of each unit that runs, as systemd knows it."""
    names = (*ALWAYS, *SWAPPED, "stuck", "gateway")
    found = lab.sh(f"systemctl show --property MainPID --value {' '.join(unit(n) for n in names)}").split()
    return {name: pid for name, pid in zip(names, found, strict=True) if pid != "0"}


def as_lab(command: str) -> subprocess.CompletedProcess[str]:
    """Run a command on the host as the user whose gateway it is, without a terminal."""
    argv = ["inside", HOST, "setpriv", "--reuid=lab", "--regid=lab", "--init-groups", *command.split()]
    return subprocess.run([PROGRAM, *argv], capture_output=True, text=True, check=False)


def act(lab: Lab, name: str, action: str, key: str = KEY) -> httpx.Response:
    """Do what a button of the dashboard does."""
    return ask(lab.url, key, f"/api/servers/{name}/{action}", {})


LOGINCTL = """#!/bin/sh
case "$*" in show-user*) echo yes;; *) exit 1;; esac
"""
"""A stand-in: logind inside a container inside a container keeps nobody's manager. The manager is a real one."""


def of_a_user(rig: Rig) -> dict[str, Any]:
    """Return the overlay for a host on which the user's own manager runs everything; three models will do."""
    found = overlay(rig)
    found["hosts"]["orin"] |= {"systemd": {"user_units": True}, "models": None, "user": None}
    for name in ("qwen", "qwen3-embedding"):
        found["models"][name] = found["deployments"][name] = None
    del found["deployments"]["stuck"]
    return {**found, "groups": {"unified": {"swap": list(SWAPPED)}}}


def test_units_of_a_user_need_no_rule(rig: Rig) -> None:
    rig.inside(HOST, "tee", "/usr/local/bin/loginctl", stdin=LOGINCTL)
    rig.sh(HOST, "chmod 755 /usr/local/bin/loginctl; systemctl start user@$(id -u lab)")
    try:
        with example(rig, "jetson", of_a_user(rig), 9000, KEY) as lab:
            lab.ok("apply", "--yes")
            for name in ("deepseek", *SWAPPED):
                assert lab.chat(name) == sentence(name)
            assert not rig.sh(HOST, "find /etc/polkit-1 /etc/systemd -name '*labctl*'")
    finally:
        rig.sh(HOST, "systemctl stop user@$(id -u lab); rm /usr/local/bin/loginctl")


def test_what_runs_always_runs_and_the_gateway_has_found_it(lab: Lab) -> None:
    assert processes(lab).keys() == {*ALWAYS, "gateway"}
    phases = lab.phases()
    assert {name for name, phase in phases.items() if phase == "ready"} == set(ALWAYS)
    assert phases.keys() == {*ALWAYS, *SWAPPED, "stuck"}
    owner = lab.sh(f"ps -o user= -p {processes(lab)['gateway']}")
    assert owner == "lab", "an ordinary user's"


def test_nobody_is_answered_without_the_key(lab: Lab) -> None:
    for key in (None, "sk-wrong"):
        assert ask(lab.url, key, "/v1/chat/completions", chat("qwen")).status_code == 401
        assert ask(lab.url, key, "/api/state").status_code == 401
        assert ask(lab.url, key, "/api/servers/qwen/stop", {}).status_code == 401
    assert ask(lab.url, None, "/health").json()["status"] == "ok"
    assert KEY not in lab.sh(
        f"tr '\\0' '\\n' </proc/{processes(lab)['gateway']}/cmdline; cat /etc/labctl/jetson/gateway/*.json"
    )


def test_on_demand_units_take_turns_and_the_others_stay(lab: Lab) -> None:
    stay = {name: pid for name, pid in processes(lab).items() if name in ALWAYS}
    for name in (*TALK, *SWAPPED):
        assert lab.chat(name) == sentence(name)
        up = processes(lab)
        assert len(SWAPPED.keys() & up.keys()) <= 1, "both do not fit"
        assert {n: up[n] for n in stay} == stay
    answer = ask(lab.url, KEY, "/v1/embeddings", {"model": "qwen3-embedding", "input": "a text"})
    assert len(answer.json()["data"][0]["embedding"]) == 32


def test_what_the_gateway_does_is_no_change(lab: Lab) -> None:
    up = processes(lab)
    assert SWAPPED.keys() & up.keys(), "something is loaded that was not when the lab was applied"
    assert lab.run("plan", "--detailed-exitcode").code == ExitCode.OK
    assert processes(lab) == up


def test_the_page_starts_and_stops_units(lab: Lab) -> None:
    lab.chat("minicpm-v")
    assert act(lab, "qwen-vl", "start").status_code == 409, "it does not fit beside the other"
    assert act(lab, "minicpm-v", "stop").status_code == 200
    until(lambda: "minicpm-v" not in processes(lab))
    assert act(lab, "qwen-vl", "start").status_code == 200
    until(lambda: lab.phases()["qwen-vl"] == "ready")
    assert "qwen-vl" in processes(lab)


def test_polkit_lets_that_user_do_no_more_than_that(lab: Lab) -> None:
    assert as_lab(f"systemctl stop {unit('qwen-vl')}").returncode == 0
    until(lambda: lab.phases()["qwen-vl"] == "stopped")
    assert as_lab(f"systemctl start {unit('qwen-vl')}").returncode == 0, "the gateway takes notice"
    until(lambda: lab.phases()["qwen-vl"] == "ready")
    for refused in (
        "stop ssh.service",
        "start rescue.service",
        f"stop {unit('gateway')}",
        f"restart {unit('qwen')}",
        f"kill {unit('qwen')}",
        f"disable {unit('qwen')}",
        f"set-property {unit('qwen')} MemoryMax=1",
        "daemon-reload",
    ):
        ran = as_lab(f"systemctl --no-ask-password {refused}")
        assert ran.returncode != 0, refused
        assert re.search("authentication required|Access denied", ran.stderr), ran.stderr


def test_a_new_gateway_goes_on_with_what_runs(lab: Lab) -> None:
    before = processes(lab)
    lab.sh(f"systemctl restart {unit('gateway')}")
    until(lambda: answers(lab))
    for name in before.keys() - {"gateway", "qwen3-embedding"}:
        assert lab.chat(name) == sentence(name)
    assert {n: p for n, p in processes(lab).items() if n != "gateway"} == {
        n: p for n, p in before.items() if n != "gateway"
    }


def answers(lab: Lab) -> bool:
    try:
        return httpx.get(f"{lab.url}/health", timeout=5).status_code == 200
    except httpx.TransportError:
        return False


def test_a_server_that_dies_is_there_again_for_whoever_asks(lab: Lab) -> None:
    pid = processes(lab)["qwen"]
    lab.sh(f"kill -KILL {pid}")
    assert lab.chat("qwen") == sentence("qwen")
    assert processes(lab)["qwen"] != pid


def test_one_that_never_gets_ready_is_given_up_and_the_others_go_on(lab: Lab) -> None:
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(lab.post, "stuck")
        until(lambda: lab.phases()["stuck"] == "starting")
        assert lab.chat("deepseek") == sentence("deepseek")
        late = waiting.result(60)
    assert late.status_code == 503
    assert int(late.headers["retry-after"]) >= 1
    assert "stuck cannot be started" in late.json()["error"]["message"]
    assert "not ready after 3 s" in late.json()["error"]["message"]
    until(lambda: lab.phases()["stuck"] == "failed")
    assert lab.sh(f"systemctl is-active {unit('stuck')}", check=False) != "activating", "nothing of it is left"


def test_a_port_that_somebody_has_is_named_and_nobody_is_sent_there(lab: Lab) -> None:
    """Without a look at the port, the stranger's answers would pass for the model's."""
    act(lab, "qwen-vl", "stop")
    until(lambda: "qwen-vl" not in processes(lab))
    serve = "python3 -m http.server --bind 127.0.0.1 --directory /run 8084"
    lab.sh(f"touch /run/health; systemd-run --quiet --unit stranger --collect {serve}")
    lab.sh("until curl -fs http://127.0.0.1:8084/health; do sleep 0.1; done")
    refused = lab.post("qwen-vl")
    assert refused.status_code == 503
    assert "a program of the user root has its port 8084" in refused.json()["error"]["message"]
    assert lab.chat("minicpm-v") == sentence("minicpm-v")
    lab.sh("systemctl stop stranger; rm /run/health")
    until(lambda: lab.post("qwen-vl").status_code == 200)
    assert lab.chat("qwen-vl") == sentence("qwen-vl")


def test_after_a_power_cut_everything_comes_back(lab: Lab) -> None:
    """At boot units start one after the other: one that waits for its turn has not failed."""
    lab.home.rig.stop(HOST)
    lab.home.rig.start(HOST)
    until(lambda: answers(lab) and {n for n, p in lab.phases().items() if p == "ready"} == set(ALWAYS), 120)
    for name in ("deepseek", "qwen", "minicpm-v"):
        assert lab.chat(name) == sentence(name)
    said = lab.sh(f"journalctl --boot --unit {unit('gateway')} --output cat")
    assert "did not start" not in said
    assert "stopping" not in said
    assert lab.todo() == set()


def test_destroyed_while_people_ask_it_leaves_nothing(lab: Lab, before: set[str]) -> None:
    """As long as the gateway runs, it starts what is asked for: what was stopped already, too."""

    def ask_on(name: str) -> None:
        with suppress(httpx.TransportError):
            while True:
                lab.post(name)

    with ThreadPoolExecutor() as pool:
        work = [pool.submit(ask_on, name) for name in TALK]
        lab.ok("destroy", "--yes", "--data")
        for asked in work:
            asked.result(60)
    assert leftovers(lab.home.rig) - before == set()
