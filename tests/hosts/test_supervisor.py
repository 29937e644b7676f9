"""Apply, change, drift and destroy against a real supervisord with real servers."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from labctl.diagnostics import ExitCode
from labctl.hosts import fleet
from labctl.hosts.events import ChangeDone, Waiting
from labctl.hosts.supervisor import Call
from labctl.plan.model import Action, Reason
from labctl.plan.observed import UnitState
from labctl.plan.wire import plan_from_json, plan_to_json
from labctl.secrets import Secret, Secrets
from labctl.views.status import is_fine
from labctl.workload import Start
from tests.hosts.labs import KEY, Lab, Program, free_port, snapshot

pytestmark = pytest.mark.slow
pytest.importorskip("supervisor", reason="the package supervisor is not installed")


@pytest.fixture
def lab() -> Iterator[Lab]:
    folder = Path(tempfile.mkdtemp(prefix="lab-"))
    made = Lab(folder / "root", {"web": Program(port=free_port(), secret=True)})
    yield made
    if made.root.exists():
        made.programs = {}
        made.extra = []
        made.destroy()
    shutil.rmtree(folder)


def ask(lab: Lab, name: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{lab.programs[name].port}/", timeout=5) as answer:
        return str(answer.read().decode())


def reasons(lab: Lab) -> dict[str, str]:
    return {c.name: str(c.reason) for c in lab.plan().todo}


def test_apply_then_nothing_to_do_then_destroy(lab: Lab) -> None:
    lab.programs["api"] = Program(port=free_port(), text="api", after=("web",))
    assert lab.apply().exit_code == ExitCode.OK
    assert (ask(lab, "web"), ask(lab, "api")) == ("hello", "api")
    assert lab.starts() == ["web", "api"]
    assert not lab.plan().applyable
    assert {c.action for c in lab.plan().changes} == {Action.NOOP}
    (lab.root / "starts.txt").unlink()
    assert lab.destroy().exit_code == ExitCode.OK
    assert not lab.root.exists()
    assert not lab.plan(destroy=True).applyable


def test_only_the_changed_unit_restarts(lab: Lab) -> None:
    lab.programs["other"] = Program(port=free_port())
    lab.apply()
    lab.change("web", text="changed")
    assert lab.apply().ok
    assert lab.done() == ["desk:web/index.html", "desk/web"]
    assert ask(lab, "web") == "changed"
    assert sorted(lab.starts()) == ["other", "web", "web"]
    lab.change("other", version="two")
    assert lab.apply().ok
    assert lab.done() == ["desk:supervisord.conf", "desk/other"]
    assert not lab.plan().applyable


def test_a_hand_edit_is_drift_and_is_put_back(lab: Lab) -> None:
    lab.apply()
    page = lab.root / "web" / "index.html"
    page.write_text("edited by hand")
    plan = lab.plan()
    assert [(c.name, c.reason) for c in plan.drift] == [("web/index.html", Reason.DRIFTED)]
    before = plan.drift[0].before
    assert before is not None
    assert before.text == "edited by hand"
    assert lab.apply(plan).ok
    assert page.read_text() == "hello"
    assert not lab.plan().applyable


@pytest.mark.parametrize("how", ["stopped", "killed-daemon", "deleted"])
def test_what_went_away_comes_back(lab: Lab, how: str) -> None:
    lab.apply()
    match how:
        case "stopped":
            Call(str(lab.root / "s.sock"))("stopProcess", "web")
            assert reasons(lab) == {"web": "stopped"}
        case "killed-daemon":
            pid = int((lab.root / "d.pid").read_text())
            child = int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])
            os.kill(pid, signal.SIGKILL)
            os.kill(child, signal.SIGKILL)
            time.sleep(0.3)
            assert reasons(lab) == {"web": "missing"}
        case _:
            (lab.root / "web" / "index.html").unlink()
            assert reasons(lab) == {"web/index.html": "missing", "web": "dependency-changed"}
    assert lab.apply().ok
    assert ask(lab, "web") == "hello"
    assert not lab.plan().applyable


@pytest.mark.parametrize("how", ["deleted", "garbled"])
def test_a_daemon_whose_file_is_gone_is_still_ended(lab: Lab, how: str) -> None:
    lab.apply()
    conf = lab.root / "supervisord.conf"
    conf.unlink() if how == "deleted" else conf.write_text("[garbage\n")
    assert reasons(lab) == {"supervisord.conf": "missing" if how == "deleted" else "drifted"}
    assert lab.destroy().ok
    with pytest.raises(OSError, match="refused"):
        ask(lab, "web")


def test_a_removed_workload_is_pruned_and_nothing_else(lab: Lab) -> None:
    lab.programs["old"] = Program(port=free_port())
    lab.apply()
    mine = lab.root / "old" / "notes.txt"
    mine.write_text("the user's own")
    del lab.programs["old"]
    assert lab.apply().ok
    assert mine.read_text() == "the user's own"
    assert not (lab.root / "old" / "index.html").exists()
    assert lab.starts().count("web") == 1
    assert not lab.plan().applyable
    mine.unlink()
    mine.parent.rmdir()


def test_a_rotated_secret_restarts_its_reader_and_shows_nowhere(lab: Lab) -> None:
    lab.programs["other"] = Program(port=free_port())
    lab.apply()
    assert KEY not in json.dumps(snapshot(lab.root / "state"))
    assert (lab.root / "secrets/web.env").stat().st_mode & 0o777 == 0o600
    lab.secrets = Secrets({"API_KEY": Secret("another-value")})
    plan = lab.plan()
    assert {(c.name, c.reason) for c in plan.todo} == {
        ("secrets/web.env", Reason.SECRET_ROTATED),
        ("web", Reason.SECRET_ROTATED),
    }
    assert "another-value" not in plan_to_json(plan)
    assert KEY not in plan_to_json(plan)
    assert lab.apply(plan).ok
    assert "another-value" not in repr(lab.events)
    assert "k:another-value" in (lab.root / "secrets/web.env").read_text()


def test_a_failing_unit_does_not_stop_its_siblings(lab: Lab) -> None:
    shout = f"sh -c 'echo {KEY.split('$', maxsplit=1)[0]} no such model; exit 3'"
    lab.secrets = Secrets({"API_KEY": Secret(KEY.split("$", maxsplit=1)[0])})
    lab.programs["broken"] = Program(command=shout)
    lab.programs["needs-broken"] = Program(port=free_port(), after=("broken",))
    report = lab.apply()
    assert report.exit_code == ExitCode.PARTIAL
    outcome = report.outcomes["desk"]
    assert set(outcome.failed) == {"desk/broken"}
    assert outcome.failed["desk/broken"].code == "LAB110"
    assert outcome.skipped == ("desk/needs-broken",)
    assert ask(lab, "web") == "hello"
    assert "*** no such model" in lab.log()
    assert lab.secrets.values["API_KEY"].reveal() not in repr(lab.events)
    lab.change("broken", command="sleep 1000")
    assert lab.apply().ok
    assert not lab.plan().applyable


def test_the_next_one_waits_until_the_first_is_healthy(lab: Lab) -> None:
    lab.change("web", slow=2.5)
    lab.programs["api"] = Program(port=free_port(), after=("web",))
    assert lab.apply().ok
    assert lab.starts() == ["web", "api"]
    assert any(isinstance(e, Waiting) and e.unit == "web" for e in lab.events)


def test_on_demand_is_loaded_and_not_started(lab: Lab) -> None:
    lab.programs["big"] = Program(port=free_port(), start=Start.ON_DEMAND)
    assert lab.apply().ok
    rows, problems = fleet.status(lab.tree())
    assert problems == ()
    assert {r.unit.name: r.seen.state for r in rows} == {"web": UnitState.RUNNING, "big": UnitState.STOPPED}
    assert not lab.plan().applyable


def test_two_units_swap_their_ports(lab: Lab) -> None:
    lab.programs["api"] = Program(port=free_port(), text="api")
    lab.apply()
    first, second = lab.programs["web"].port, lab.programs["api"].port
    lab.change("web", port=second)
    lab.change("api", port=first)
    assert lab.apply().ok
    assert (ask(lab, "web"), ask(lab, "api")) == ("hello", "api")


def test_a_foreign_file_is_kept_as_a_copy(lab: Lab) -> None:
    (lab.root / "web").mkdir(parents=True)
    (lab.root / "web" / "index.html").write_text("precious")
    assert reasons(lab)["web/index.html"] == "foreign"
    assert lab.apply().ok
    copy = lab.root / "state" / "backup" / "web" / "index.html"
    assert copy.read_text() == "precious"
    shutil.rmtree(copy.parents[1])


def test_a_saved_plan_is_refused_once_the_host_moved(lab: Lab) -> None:
    lab.apply()
    lab.change("web", text="new")
    plan = plan_from_json(plan_to_json(lab.plan()))
    (lab.root / "web" / "index.html").write_text("by hand")
    report = lab.apply(plan, exact=True)
    assert report.exit_code == ExitCode.STALE
    assert report.stale == ("desk:web/index.html",)
    assert (lab.root / "web" / "index.html").read_text() == "by hand"
    assert lab.apply(exact=True).ok


def test_a_plan_for_another_tree_is_refused(lab: Lab) -> None:
    plan = lab.plan()
    lab.change("web", text="new")
    assert lab.apply(plan).exit_code == ExitCode.STALE
    assert not lab.root.exists()


def test_two_applies_at_once(lab: Lab) -> None:
    """One works, the other is refused; with patience it finds everything done."""
    lab.change("web", slow=2)
    plan = lab.plan()
    reports: dict[str, fleet.Report] = {}

    def run(name: str, wait: float) -> None:
        reports[name] = fleet.apply(plan, lab.tree(), lab.secrets, lambda _: None, fleet.How(wait_for_lock=wait))

    first = threading.Thread(target=run, args=("first", 0))
    first.start()
    while not (lab.root / "state" / "lock").exists():
        time.sleep(0.01)
    run("second", 0)
    run("patient", 60)
    first.join()
    assert reports["first"].ok
    assert [d.code for d in reports["second"].diagnostics] == ["LAB103"]
    assert reports["second"].exit_code == ExitCode.ERROR
    assert reports["patient"].ok
    assert reports["patient"].outcomes["desk"].done == ()
    assert lab.starts() == ["web"]


def test_a_dead_holders_lock_is_taken_over(lab: Lab) -> None:
    lab.apply()
    holder = {
        "user": "x",
        "machine": socket.gethostname(),
        "since": "then",
        "process": "1.1.other-boot",
        "doing": "apply",
    }
    (lab.root / "state" / "lock").write_text(json.dumps(holder))
    lab.change("web", text="new")
    assert lab.apply().ok
    holder["host"] = "another machine that shares this folder"
    (lab.root / "state" / "lock").write_text(json.dumps(holder))
    lab.change("web", text="newer")
    assert [d.code for d in lab.apply().diagnostics] == ["LAB103"]
    report = fleet.apply(lab.plan(), lab.tree(), lab.secrets, lambda _: None, fleet.How(break_lock=True))
    assert report.ok


def test_the_audit_log_says_who_did_what(lab: Lab) -> None:
    lab.apply()
    line = json.loads((lab.root / "state" / "audit.jsonl").read_text().splitlines()[-1])
    assert (line["action"], line["lab"], line["result"]) == ("apply", "test", "done")
    assert line["user"]
    assert len(line["plan"]) == 64


def test_an_unreadable_manifest_stops_everything(lab: Lab) -> None:
    lab.apply()
    manifest = lab.root / "state" / "manifest.json"
    kept = manifest.read_text()
    manifest.write_text("{}")
    plan = lab.plan()
    assert not plan.complete
    assert [d.code for d in plan.diagnostics] == ["LAB102"]
    assert lab.apply(plan).exit_code == ExitCode.ERROR
    manifest.write_text(kept)


def test_logs_are_the_programs_own(lab: Lab) -> None:
    lab.change("web", command="sh -c 'echo one; echo two; exec sleep 1000'", port=0)
    lab.apply()
    assert list(fleet.logs(lab.tree(), "web", lines=10)) == ["one", "two"]
    with pytest.raises(KeyError):
        fleet.logs(lab.tree(), "nobody")


def test_events_come_in_pairs(lab: Lab) -> None:
    lab.apply()
    finished = [e for e in lab.events if isinstance(e, ChangeDone)]
    assert len(finished) == len({e.address for e in finished}) == 5


def test_a_taken_port_is_said_at_once_and_the_others_start(lab: Lab) -> None:
    """As when another lab runs its gateway there: the health address answers, but it is not ours."""
    lab.programs["other"] = Program(port=free_port())
    port = lab.programs["web"].port
    with ThreadingHTTPServer(("127.0.0.1", port), SimpleHTTPRequestHandler) as stranger:
        serving = threading.Thread(target=stranger.serve_forever)
        serving.start()
        try:
            report = lab.apply()
        finally:
            stranger.shutdown()
            serving.join()
    (problem,) = [e.problem for e in lab.events if isinstance(e, ChangeDone) and e.problem is not None]
    assert problem.code == "LAB123"
    assert f"127.0.0.1:{port}" in problem.summary
    assert report.exit_code == ExitCode.PARTIAL
    assert ask(lab, "other") == "hello"
    assert lab.apply().ok
    assert ask(lab, "web") == "hello"


def test_a_task_runs_to_its_end_once(lab: Lab) -> None:
    noted = "sh -c 'sleep 0.6; echo task >> starts.txt'"
    lab.programs["task"] = Program(start=Start.ONCE, after=("web",), command=noted)
    lab.programs["api"] = Program(port=free_port(), after=("task",))
    assert lab.apply().ok
    assert lab.starts() == ["web", "task", "api"]
    assert not lab.plan().applyable
    rows, _ = fleet.status(lab.tree())
    assert {r.unit.name: (r.seen.state, r.current) for r in rows}["task"] == (UnitState.FINISHED, True)
    assert all(is_fine(r) for r in rows)
    lab.change("task", version="two")
    assert reasons(lab)["task"] == Reason.DEFINITION_CHANGED
    assert lab.apply().ok
    assert lab.starts().count("task") == 2
    assert not lab.plan().applyable


def test_a_task_that_fails_shows_its_log_and_runs_again(lab: Lab) -> None:
    lab.programs["task"] = Program(start=Start.ONCE, command="sh -c 'echo no such table; test -e done'")
    lab.programs["api"] = Program(port=free_port(), after=("task",))
    report = lab.apply()
    assert report.outcomes["desk"].failed["desk/task"].summary == "`task` did not finish: it is failed"
    assert "no such table" in lab.log()
    assert report.outcomes["desk"].skipped == ("desk/api",)
    (lab.root / "done").touch()
    assert lab.apply().ok
    assert not lab.plan().applyable
