"""Applies that are killed, repeated, saved, doubled: two servers without a gateway, so that each takes seconds."""

from __future__ import annotations

import json
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from labctl.diagnostics import ExitCode
from tests.e2e.place import Place, ask, chat, is_free, lines_until, place, said
from tests.embedded.servers import free_port

pytestmark = pytest.mark.slow
ROUNDS = 12
PORTS = {"alpha": free_port(), "beta": free_port(), "gamma": free_port()}
FIRST = {"alpha": "The first words of alpha", "beta": "Only beta talks like this"}
SECOND = {"alpha": "Now alpha speaks other words", "gamma": "A new server called gamma"}


def lab(servers: dict[str, str]) -> str:
    """Return a lab of servers that each say their own sentence."""
    models = "".join(f"  {name}: {{tiny: {{says: {says}}}}}\n" for name, says in servers.items())
    deployments = "".join(
        f"  {name}: {{model: {name}, engine: llama.cpp, flavour: embedded, on: {{host: here}},"
        f" port: {PORTS[name]}, context: 512}}\n"
        for name in servers
    )
    hosts = "hosts:\n  here: {target: local}\n"
    return f"lab: quickstart\n{hosts}models:\n{models}deployments:\n{deployments}"


@pytest.fixture
def here() -> Iterator[Place]:
    with place(lab(FIRST)) as made:
        yield made


def runs(where: Place, servers: dict[str, str]) -> None:
    """The lab is what its file says, and nothing else of it runs."""
    assert where.run("plan", "--detailed-exitcode").code == ExitCode.OK
    assert where.run("status").code == ExitCode.OK
    assert set(where.programs()) == set(servers)
    for name, says in servers.items():
        assert said(ask(f"http://127.0.0.1:{PORTS[name]}", None, "/v1/chat/completions", chat(name))) == says
    assert len(where.processes()) == len(servers) + 1, where.processes()


def gone(where: Place) -> None:
    """Nothing is left: no file, no process, no port."""
    assert where.processes() == {}
    assert where.files() == []
    assert all(is_free(port) for port in PORTS.values())


def steps(where: Place) -> int:
    """Apply once, undisturbed; returns how many events it tells."""
    return len(where.ok("apply", "--yes", "--json").out.splitlines())


def killed_after(where: Place, events: int, pause: float) -> None:
    """Start an apply and end it with SIGKILL a moment after so many events."""
    with where.spawn("apply", "--yes", "--json") as process:
        lines_until(process, events)
        time.sleep(pause)
        process.send_signal(signal.SIGKILL)


def points(total: int) -> list[tuple[int, float]]:
    """Return moments that are spread evenly over an apply, each a little behind its event."""
    spread = random.Random(20)  # noqa: S311 - the same moments every time
    return [(round(i * total / ROUNDS), spread.uniform(0, 0.15)) for i in range(ROUNDS)]


def test_a_first_apply_killed_at_many_points(here: Place) -> None:
    total = steps(here)
    here.ok("destroy", "--yes", "--data")
    for events, pause in points(total):
        killed_after(here, events, pause)
        here.ok("apply", "--yes")
        runs(here, FIRST)
        here.ok("destroy", "--yes", "--data")
        gone(here)


def test_an_update_killed_at_many_points(here: Place) -> None:
    here.ok("apply", "--yes")
    here.write(lab(SECOND))
    total = steps(here)
    states = [FIRST, SECOND]
    for i, (events, pause) in enumerate(points(total)):
        here.write(lab(states[i % 2]))
        killed_after(here, events, pause)
        here.ok("apply", "--yes")
        runs(here, states[i % 2])


def test_a_destroy_killed_at_many_points(here: Place) -> None:
    for events in range(0, 10, 2):
        here.ok("apply", "--yes")
        with here.spawn("destroy", "--yes", "--data", "--json") as process:
            lines_until(process, events)
            process.send_signal(signal.SIGKILL)
        here.run("destroy", "--yes", "--data")
        gone(here)


def test_an_update_touches_what_was_planned_and_no_more(here: Place) -> None:
    here.ok("apply", "--yes")
    before = here.programs()
    here.write(lab({**FIRST, "gamma": SECOND["gamma"]}))
    assert here.changes() == [
        ("file", "models/gamma.gguf", "create"),
        ("file", "supervisord.conf", "update"),
        ("unit", "gamma", "create"),
    ]
    here.ok("apply", "--yes")
    more = here.programs()
    assert {name: more[name] for name in before} == before
    here.write(lab(FIRST))
    assert ("unit", "gamma", "delete") in here.changes()
    here.ok("apply", "--yes")
    assert here.programs() == before
    assert not (here.root / "models/gamma.gguf").exists()
    assert is_free(PORTS["gamma"])


def test_a_changed_model_restarts_its_server_alone(here: Place) -> None:
    here.ok("apply", "--yes")
    before = here.programs()
    here.write(lab({**FIRST, "alpha": SECOND["alpha"]}))
    units = [change for change in here.changes() if change[0] == "unit"]
    assert units == [("unit", "alpha", "restart")]
    here.ok("apply", "--yes")
    after = here.programs()
    assert after["beta"] == before["beta"]
    assert after["alpha"] != before["alpha"]
    runs(here, {**FIRST, "alpha": SECOND["alpha"]})


def test_a_saved_plan_is_applied_as_it_was_shown(here: Place) -> None:
    here.ok("plan", "--out", "plan.json")
    assert set(json.loads(Path(here.lab / "plan.json").read_text())) >= {"changes", "hosts", "source"}
    here.ok("apply", "plan.json", "--yes")
    runs(here, FIRST)


def test_a_stale_plan_is_refused(here: Place) -> None:
    here.ok("plan", "--out", "plan.json")
    here.write(lab(SECOND))
    ran = here.run("apply", "plan.json", "--yes")
    assert (ran.code, "LAB124" in ran.err) == (ExitCode.STALE, True)
    assert here.files() == []
    here.ok("apply", "--yes")
    here.write(lab(FIRST))
    here.ok("plan", "--out", "plan.json")
    (here.root / "supervisord.conf").write_text("[supervisord]\n; somebody else was here\n")
    assert here.run("apply", "plan.json", "--yes").code == ExitCode.STALE
    assert set(here.programs()) == set(SECOND)


def test_two_applies_at_once(here: Place) -> None:
    """The second one waits if it may; else it says who holds the lock. Nothing is done twice."""
    with here.spawn("apply", "--yes", "--json") as first:
        lines_until(first, 3)
        refused = here.run("apply", "--yes")
        first.communicate(timeout=60)
    assert first.returncode == ExitCode.OK
    assert refused.code in {ExitCode.OK, ExitCode.ERROR}, refused.err
    assert refused.code == ExitCode.OK or "LAB103" in refused.err
    here.write(lab(SECOND))
    both = [here.spawn("apply", "--yes", "--wait", "60") for _ in range(2)]
    said_by = [process.communicate(timeout=120)[1] for process in both]
    assert {p.returncode for p in both} <= {ExitCode.OK, ExitCode.STALE}, said_by
    assert ExitCode.OK in {p.returncode for p in both}
    runs(here, SECOND)
