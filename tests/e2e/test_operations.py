"""Operating a lab with real processes: a switch, Ctrl-C once and twice, locks, the terminal."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from labctl.diagnostics import ExitCode
from tests.e2e.place import Place, place
from tests.hosts.labs import free_port

pytestmark = pytest.mark.slow

SERVER = """
import http.server, os, sys, time
if os.path.exists(f"{sys.argv[0]}.{sys.argv[1]}"):
    sys.exit(3)
time.sleep(float(sys.argv[2]))
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers()
    def log_message(self, *a): pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""
LAB = """\
lab: ops
hosts: {{here: {{target: local}}}}
models: {{none: {{tiny: {{says: x}}}}}}
deployments:
  alpha: &one
    {{engine: command, model: none, on: {{host: here}}, program: "{python}", startup: 15 s, port: {a},
     args: [{server}, "{{port}}", "0"], health_path: /}}
  beta: {{<<: *one, port: {b}, args: [{server}, "{{port}}", "{slow}"]}}
{groups}
"""
GROUPS = "groups: {{turns: {{exclusive: [alpha, beta], active: {active}}}}}"


def write(where: Place, *, slow: float = 0, active: str | None = None) -> None:
    server = where.folder / "server.py"
    server.write_text(SERVER)
    ports = json.loads((where.folder / "ports").read_text())
    groups = GROUPS.format(active=active) if active else ""
    where.write(LAB.format(python=sys.executable, server=server, slow=slow, groups=groups, a=ports[0], b=ports[1]))


@pytest.fixture
def where() -> Iterator[Place]:
    with place("") as found:
        (found.folder / "ports").write_text(json.dumps([free_port(), free_port()]))
        yield replace(found, name="ops")


def running(where: Place) -> set[str]:
    return set(where.programs())


def locked(where: Place) -> bool:
    return any(where.root.rglob("lock"))


def test_a_switch_is_kept_until_lab_yaml_names_another_one(where: Place) -> None:
    write(where, active="alpha")
    where.ok("apply", "--yes")
    assert running(where) == {"alpha"}
    ran = where.ok("switch", "turns", "beta")
    assert "`beta` runs" in ran.out
    assert json.loads(where.ok("history", "--json", "--last", "1").out)["history"][0]["action"] == "switch"
    assert running(where) == {"beta"}
    before = where.programs()
    for arguments in (["plan"], ["status"], ["plan", "--offline"]):
        said = where.ok(*arguments)
        assert "switched by hand to `beta`; lab.yaml says `alpha`" in said.err, arguments
    assert where.changes() == []
    where.ok("apply", "--yes")
    assert where.programs() == before
    groups = json.loads(where.ok("switch", "--json").out)["groups"]
    assert [(g["group"], g["active"], g["lab_says"]) for g in groups] == [("turns", "beta", "alpha")]
    assert where.run("switch", "turns", "gamma").code == ExitCode.ERROR
    write(where, active="beta")
    assert "switched" not in where.ok("apply", "--yes").err
    write(where, active="alpha")
    assert "switched" not in where.ok("apply", "--yes").err
    assert running(where) == {"alpha"}
    where.ok("destroy", "--yes", "--data")
    assert where.files() == []


def test_a_switch_changes_nothing_else(where: Place) -> None:
    write(where, active="alpha")
    where.ok("apply", "--yes")
    where.lab.joinpath("lab.yaml").write_text(where.lab.joinpath("lab.yaml").read_text().replace('"0"]', '"0.1"]'))
    ran = where.run("switch", "turns", "beta")
    assert (ran.code, "LAB182" in ran.err) == (ExitCode.ERROR, True)
    assert running(where) == {"alpha"}
    where.ok("destroy", "--yes", "--data")


def test_a_member_that_does_not_come_up_gives_its_turn_back(where: Place) -> None:
    write(where, active="alpha")
    where.ok("apply", "--yes")
    port = json.loads((where.folder / "ports").read_text())[1]
    (where.folder / f"server.py.{port}").touch()
    ran = where.run("switch", "turns", "beta")
    assert ran.code == ExitCode.PARTIAL
    assert "runs again as it was applied at" in ran.err
    assert running(where) == {"alpha"}
    assert where.run("switch").out.startswith("turns\n")
    assert where.changes() == []
    where.ok("destroy", "--yes", "--data")


def stop_while_waiting(where: Place, *signals: signal.Signals) -> tuple[int, str, list[dict[str, object]], float]:
    """Apply, interrupt while a server starts; return exit status, stderr, events and the seconds that it took."""
    events: list[dict[str, object]] = []
    with where.spawn("apply", "--yes", "--json") as process:
        assert process.stdout is not None
        for line in process.stdout:
            events.append(json.loads(line))
            if events[-1]["event"] == "Waiting":
                break
        begun = time.monotonic()
        for number in signals:
            process.send_signal(number)
            time.sleep(0.05)
        out, err = process.communicate(timeout=30)
        events += [json.loads(line) for line in out.splitlines()]
        return process.returncode, err, events, time.monotonic() - begun


def test_ctrl_c_stops_between_steps_and_says_where(where: Place) -> None:
    write(where, slow=45)
    code, err, events, _ = stop_while_waiting(where, signal.SIGINT)
    assert (code, "stopping after the step" in err) == (ExitCode.INTERRUPTED, True)
    failed = next(e for e in events if e["event"] == "HostFailed")
    assert (failed["interrupted"], failed["next"]) == (True, "here/beta")
    result = events[-1]
    assert (result["event"], result["exit_code"]) == ("Result", ExitCode.INTERRUPTED)
    assert not locked(where)
    entry = json.loads(where.ok("history", "--json").out)["history"][-1]
    assert entry["result"] == "interrupted"
    write(where, slow=0)
    where.ok("apply", "--yes")
    assert running(where) == {"alpha", "beta"}
    where.ok("destroy", "--yes", "--data")


def test_a_second_ctrl_c_stops_at_once_and_the_lock_it_leaves_is_taken(where: Place) -> None:
    write(where, slow=45)
    code, err, events, seconds = stop_while_waiting(where, signal.SIGINT, signal.SIGINT)
    assert (code, "stopped at once" in err) == (ExitCode.INTERRUPTED, True)
    assert seconds < 5
    assert events[-1]["event"] != "Result"
    assert locked(where)
    assert "a lock was left behind by" in where.run("status").out
    (held,) = json.loads(where.run("status", "--json").out)["locks"]
    assert (held["for"], held["stale"], held["doing"]) == ("here", True, "apply")
    write(where, slow=0)
    assert "taking over the lock that was left behind by" in where.ok("apply", "--yes").err
    assert not locked(where)
    history = json.loads(where.ok("history", "--json").out)["history"]
    assert [(e["action"], e["result"]) for e in history] == [("apply", "cut off"), ("apply", "done")]
    where.ok("destroy", "--yes", "--data")


def test_a_living_apply_keeps_others_out(where: Place) -> None:
    write(where, slow=6)
    with where.spawn("apply", "--yes", "--json") as first:
        assert first.stdout is not None
        while json.loads(first.stdout.readline())["event"] != "Waiting":
            pass
        status = where.run("status")
        assert "here: locked by" in status.out
        second = where.run("apply", "--yes")
        assert (second.code, "LAB103" in second.err) == (ExitCode.ERROR, True)
        waited = where.run("apply", "--yes", "--wait", "60")
        assert waited.code == ExitCode.OK, waited.err
        assert "waiting for the lock of" in waited.err
        first.communicate(timeout=30)
        assert first.returncode == ExitCode.OK
    where.ok("destroy", "--yes", "--data")


def test_a_broken_lock_stops_its_holder(where: Place) -> None:
    write(where, slow=45)
    with where.spawn("apply", "--yes", "--json") as first:
        assert first.stdout is not None
        while json.loads(first.stdout.readline())["event"] != "Waiting":
            pass
        write(where, slow=0)
        with where.spawn("apply", "--yes", "--break-lock") as second:
            out, _ = first.communicate(timeout=30)
            assert "was broken by" in out
            assert first.returncode != ExitCode.OK
            _, err = second.communicate(timeout=90)
            assert "breaking the lock of" in err
    where.ok("apply", "--yes")
    where.ok("destroy", "--yes", "--data")


def on_a_terminal(where: Place, *arguments: str) -> str:
    """Run labctl on a terminal of its own and return what it wrote there."""
    master, slave = pty.openpty()
    environment = {**where.environment, "TERM": "xterm", "COLUMNS": "100", "LINES": "30"}
    command = [sys.executable, "-m", "labctl", *arguments]
    with subprocess.Popen(command, cwd=where.lab, env=environment, stdin=slave, stdout=slave, stderr=slave) as process:
        os.close(slave)
        shown = b""
        while True:
            ready, _, _ = select.select([master], [], [], 60)
            assert ready, shown
            try:
                part = os.read(master, 65536)
            except OSError:
                break
            if not part:
                break
            shown += part
        assert process.wait(30) == 0, shown
    os.close(master)
    return shown.decode()


def test_on_a_terminal_there_is_a_row_per_host_and_nothing_stays_of_it(where: Place) -> None:
    write(where, slow=3)
    shown = on_a_terminal(where, "apply", "--yes")
    assert re.search(r"here +\d/\d +beta +waiting until it is healthy, \d of \d+ s", shown)
    assert "+ here/beta created" in shown
    assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l"), "the cursor is shown again"
    assert "applied." in shown
    where.ok("destroy", "--yes", "--data")
