"""The systemd target against the host's own systemd."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from labctl.diagnostics import ExitCode
from labctl.hosts import fleet
from labctl.plan.model import Action
from labctl.plan.observed import UnitState
from labctl.secrets import Secret, Secrets
from labctl.workload import ConfigFile, Health, Native, Port, SecretRef, SecretText, Start, Workload
from tests.rig.inside.labs import VALUE, Lab, ask, everything, out

SERVE = "import http.server,os,sys; t=open(sys.argv[1]).read()+os.environ.get('TOKEN','')"
HANDLER = (
    "class H(http.server.BaseHTTPRequestHandler):\n"
    "  def do_GET(s): s.send_response(200); s.end_headers(); s.wfile.write(t.encode())\n"
    "  def log_message(s,*a): pass\n"
    "http.server.HTTPServer(('127.0.0.1',int(sys.argv[2])),H).serve_forever()\n"
)
FOLDERS = ("/etc/systemd/system", "/etc/labctl", "/var/lib/labctl")


def server(name: str, port: int, text: str = "one", **facts: object) -> Workload:
    workload = Workload(
        name=name,
        host="here",
        forms=(Native(program="/usr/bin/python3", args=("{config:serve.py}", "{config:page}", str(port))),),
        files=(
            ConfigFile(name="serve.py", content=SERVE.replace("; ", "\n") + "\n" + HANDLER, target="-"),
            ConfigFile(name="page", content=text, target="-"),
        ),
        ports=(Port(name="http", listen=port, published=port),),
        health=Health(path="/", interval=1, retries=2, timeout=2, start_period=15),
        env={"TOKEN": SecretText((SecretRef("TOKEN"),))},
    )
    return replace(workload, **facts)  # type: ignore[arg-type]


def unit(name: str) -> str:
    return f"labctl-rig-{name}.service"


@pytest.fixture
def lab() -> Iterator[Lab]:
    made = Lab("systemd", {"web": server("web", 8101)})
    before = everything(*FOLDERS)
    yield made
    assert made.destroy().exit_code == ExitCode.OK
    assert everything(*FOLDERS) == before
    assert "labctl-" not in out("systemctl", "list-units", "--all", "--plain", "--no-legend")


def test_apply_then_nothing_to_do(lab: Lab) -> None:
    report = lab.apply()
    assert report.ok, report.diagnostics
    assert ask(8101) == f"one{VALUE}"
    assert out("systemctl", "is-enabled", unit("web")) == "enabled"
    assert lab.todo() == []
    again = lab.apply()
    assert again.ok
    assert lab.done() == []


def test_hand_edits_are_put_back(lab: Lab) -> None:
    lab.apply()
    path = Path("/etc/systemd/system", unit("web"))
    path.write_text(path.read_text() + "# by hand\n")
    assert lab.todo() == [
        (f"etc/systemd/system/{unit('web')}", "update", "drifted"),
        ("web", "restart", "dependency-changed"),
    ]
    assert lab.apply().ok
    assert "by hand" not in path.read_text()
    out("systemctl", "stop", unit("web"))
    assert lab.todo() == [("web", "start", "stopped")]
    assert lab.apply().ok
    out("systemctl", "disable", unit("web"))
    assert lab.todo() == [("web", "update", "not-enabled")]
    assert lab.apply().ok
    assert out("systemctl", "is-enabled", unit("web")) == "enabled"
    assert lab.todo() == []


def test_only_what_changed_restarts_in_order_and_the_rest_is_pruned(lab: Lab) -> None:
    lab.workloads["api"] = server("api", 8102, after=("web",))
    lab.workloads["old"] = server("old", 8103)
    assert lab.apply().ok
    assert lab.done().index("/web") < lab.done().index("/api")
    started = {n: out("systemctl", "show", "-P", "ActiveEnterTimestampMonotonic", unit(n)) for n in ("web", "api")}
    lab.workloads["web"] = server("web", 8101, "two")
    del lab.workloads["old"]
    assert lab.apply().ok
    assert ask(8101).startswith("two")
    now = {n: out("systemctl", "show", "-P", "ActiveEnterTimestampMonotonic", unit(n)) for n in ("web", "api")}
    assert now["api"] == started["api"]
    assert now["web"] != started["web"]
    assert not Path("/etc/systemd/system", unit("old")).exists()
    assert out("systemctl", "show", "-P", "LoadState", unit("old")) == "not-found"
    assert lab.todo() == []


def test_a_failing_unit_is_reported_with_its_log(lab: Lab) -> None:
    lab.workloads["bad"] = server("bad", 8104, forms=(Native(program="/bin/sh", args=("-c", "echo oh no; exit 7")),))
    report = lab.apply()
    assert report.exit_code == ExitCode.PARTIAL
    assert set(report.outcomes["here"].failed) == {"here/bad"}
    assert "oh no" in lab.log()
    assert ask(8101).startswith("one")
    del lab.workloads["bad"]
    assert lab.apply().ok


def test_a_unit_file_that_systemd_dislikes_activates_nothing(lab: Lab) -> None:
    lab.apply()
    lab.workloads["web"] = server("web", 8101, extra={"systemd": {"Service": {"MemoryMaxx": "4G"}}})
    report = lab.apply()
    assert [d.code for d in report.diagnostics] == ["LAB113"]
    assert ask(8101).startswith("one")
    lab.workloads["web"] = server("web", 8101)
    assert lab.apply().ok
    assert lab.todo() == []


def test_on_demand(lab: Lab) -> None:
    lab.workloads["big"] = server("big", 8105, start=Start.ON_DEMAND)
    assert lab.apply().ok
    rows, _ = fleet.status(lab.tree())
    assert {r.unit.name: r.seen.state for r in rows} == {"web": UnitState.RUNNING, "big": UnitState.STOPPED}
    assert {c.action for c in lab.plan().changes} == {Action.NOOP}
    out("systemctl", "start", unit("big"))
    assert lab.todo() == []
    assert fleet.logs(lab.tree(), "big", lines=5) is not None


def started(name: str) -> str:
    return out("systemctl", "show", "-P", "ActiveEnterTimestampMonotonic", unit(name))


def test_a_rotated_secret_restarts_exactly_what_uses_it(lab: Lab) -> None:
    lab.workloads["other"] = server("other", 8106, env={})
    lab.workloads["next"] = server("next", 8107, env={"OTHER": SecretText((SecretRef("OTHER"),))}, after=("web",))
    lab.secrets = Secrets({"TOKEN": Secret(VALUE), "OTHER": Secret("kept")})
    assert lab.apply().ok
    before = {name: started(name) for name in ("web", "other", "next")}
    lab.secrets = Secrets({"TOKEN": Secret("new value"), "OTHER": Secret("kept")})
    assert lab.todo() == [
        ("etc/labctl/rig/secrets/web.env", "update", "secret-rotated"),
        ("web", "restart", "secret-rotated"),
    ]
    assert lab.apply().ok
    assert ask(8101) == "onenew value"
    after = {name: started(name) for name in ("web", "other", "next")}
    assert {name for name in before if before[name] != after[name]} == {"web"}
    assert lab.todo() == []
    assert VALUE not in out("journalctl", "--no-pager", "--output=cat")


def test_a_credential_is_for_its_service_alone(lab: Lab) -> None:
    script = "import sys, time; print('read', len(open(sys.argv[1]).read()), flush=True); time.sleep(600)"
    form = Native(
        program="/usr/bin/python3",
        args=("-c", script, "{credential:key}"),
        credentials={"key": SecretText((SecretRef("TOKEN"),))},
    )
    lab.workloads["reader"] = server("reader", 8108, forms=(form,), files=(), env={}, health=None)
    assert lab.apply().ok
    stored = Path("/etc/labctl/rig/secrets/reader/key")
    assert (stored.stat().st_mode & 0o777, stored.stat().st_uid) == (0o600, 0)
    assert stored.read_text() == VALUE
    assert f"read {len(VALUE)}" in "\n".join(fleet.logs(lab.tree(), "reader", lines=20))
    pid = out("systemctl", "show", "-P", "MainPID", unit("reader"))
    assert VALUE not in Path(f"/proc/{pid}/environ").read_text()
    assert VALUE not in Path(f"/proc/{pid}/cmdline").read_text()
    first = started("reader")
    lab.secrets = Secrets({"TOKEN": Secret("another")})
    assert lab.apply().ok
    assert started("reader") != first
    assert "read 7" in "\n".join(fleet.logs(lab.tree(), "reader", lines=20))


@pytest.mark.parametrize(
    ("form", "why"),
    [
        (Native(program="/opt/no-such-server"), "its program is not there"),
        (Native(program="/bin/sleep", args=("9",), user="nobody-of-that-name"), "its user does not exist"),
    ],
)
def test_a_service_that_cannot_even_begin_says_why(lab: Lab, form: Native, why: str) -> None:
    Path("/opt/no-such-server").write_text("#!/no/such/interpreter")
    Path("/opt/no-such-server").chmod(0o755)
    lab.workloads["bad"] = server("bad", 8109, forms=(form,), files=())
    try:
        report = lab.apply()
        assert why in report.outcomes["here"].failed["here/bad"].detail
    finally:
        Path("/opt/no-such-server").unlink()
        del lab.workloads["bad"]
    assert lab.apply().ok


def test_logs_are_found_in_a_journal_of_their_own(lab: Lab) -> None:
    form = Native(program="/bin/sh", args=("-c", "echo said so; sleep 600"))
    apart: dict[str, dict[str, object]] = {"systemd": {"Service": {"LogNamespace": "rig"}}}
    lab.workloads["quiet"] = server("quiet", 8110, forms=(form,), files=(), env={}, health=None, extra=apart)
    assert lab.apply().ok
    assert "said so" not in out("journalctl", "--no-pager", "--output=cat", "--unit", unit("quiet"))
    assert "said so" in "\n".join(fleet.logs(lab.tree(), "quiet", lines=20))


def test_what_is_started_again_while_it_is_removed_is_gone_all_the_same(lab: Lab) -> None:
    """A gateway starts what is asked for while it runs: here a loop that is stopped last, being first by name."""
    again = f"while :; do systemctl start {unit('web')}; sleep 0.05; done"
    form = Native(program="/bin/sh", args=("-c", again), user="root")
    lab.workloads["keeper"] = server("keeper", 8111, forms=(form,), files=(), env={}, health=None)
    assert lab.apply().ok
    assert lab.destroy().ok
    assert out("systemctl", "show", "-P", "ActiveState", unit("web")) == "inactive"
