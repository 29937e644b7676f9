"""Several hosts at once: one that fails does not stop the others."""

from __future__ import annotations

from pathlib import Path

from labctl.artefact import File, HostRoot, Manager, SecretFile, Tree, Unit
from labctl.diagnostics import ExitCode
from labctl.hosts import fleet
from labctl.hosts.events import Event, HostDone, HostFailed
from labctl.plan.diff import diff
from labctl.plan.model import Action, Plan
from labctl.plan.wire import plan_to_json
from labctl.secrets import Secret, Secrets
from labctl.workload import SecretRef, SecretText

SENTINEL = "this-must-not-appear"
SECRETS = Secrets({"KEY": Secret(SENTINEL)})


def tree(*roots: HostRoot) -> Tree:
    return Tree.of([*roots, *(File(host=r.host, path="a/f", content=b"x") for r in roots)])


def plan_of(wanted: Tree) -> Plan:
    return diff(wanted, fleet.observe(wanted), fleet.secret_digests(wanted, SECRETS))


def test_a_host_that_fails_does_not_stop_its_sibling(tmp_path: Path) -> None:
    blocked = tmp_path / "blocked"
    wanted = tree(
        HostRoot(host="good", root=str(tmp_path / "good"), state="state"),
        HostRoot(host="bad", root=str(blocked), state="state"),
    )
    plan = plan_of(wanted)
    assert plan.complete
    blocked.write_text("a file where the root is to be")
    events: list[Event] = []
    report = fleet.apply(plan, wanted, SECRETS, events.append)
    assert report.exit_code == ExitCode.PARTIAL
    assert [d.code for d in report.diagnostics] == ["LAB101"]
    assert report.outcomes["good"].done == ("good:a/f",)
    assert report.outcomes["bad"].skipped == ("bad:a/f",)
    assert {type(e) for e in events} >= {HostDone, HostFailed}


def test_a_machine_out_of_reach_is_planned_as_unknown_and_left_alone(tmp_path: Path) -> None:
    wanted = tree(
        HostRoot(host="far", root="/", state="state", managers=(Manager.SYSTEMD,), address="192.0.2.1"),
        HostRoot(host="near", root=str(tmp_path / "near"), state="state"),
    )
    plan = plan_of(wanted)
    assert (plan.complete, plan.applyable, plan.errored) == (False, True, True)
    assert [(c.host, c.action) for c in plan.changes] == [("far", Action.UNKNOWN), ("near", Action.CREATE)]
    assert [d.code for d in plan.diagnostics] == ["LAB164"]
    report = fleet.apply(plan, wanted, SECRETS, lambda _: None)
    assert report.exit_code == ExitCode.PARTIAL
    assert (tmp_path / "near/a/f").exists()


def test_a_managers_absence_is_said_before_anything_is_done(tmp_path: Path) -> None:
    root = HostRoot(host="h", root=str(tmp_path / "h"), state="state", managers=(Manager.SYSTEMD_USER,))
    unit = Unit(
        host="h", name="web", id="web.service", manager=Manager.SYSTEMD_USER, project="web.service", fingerprint="f"
    )
    wanted = Tree.of([root, unit])
    plan = plan_of(wanted)
    assert [d.code for d in plan.diagnostics] in ([], ["LAB105"])
    if plan.diagnostics:
        assert not plan.applyable
        assert fleet.apply(plan, wanted, SECRETS, lambda _: None).exit_code == ExitCode.ERROR
        assert not (tmp_path / "h").exists()


def test_a_secret_turns_up_in_its_own_file_and_nowhere_else(tmp_path: Path) -> None:
    """Not in the plan, the events, labctl's own files or the old content of a file that a person pasted it into."""
    root = HostRoot(host="h", root=str(tmp_path / "h"), state="state")
    secret = SecretFile(host="h", path="s.env", entries={"K": SecretText(("u:", SecretRef("KEY")))})
    wanted = Tree.of([root, secret, File(host="h", path="plain.conf", content=b"no secret\n")])
    events: list[Event] = []
    first = plan_of(wanted)
    assert fleet.apply(first, wanted, SECRETS, events.append).ok
    (tmp_path / "h/plain.conf").write_text(f"pasted {SENTINEL}\n")
    observed = fleet.observe(wanted, SECRETS)
    second = diff(wanted, observed, fleet.secret_digests(wanted, SECRETS))
    assert second.applyable
    shown = [plan_to_json(first), plan_to_json(second), repr(events), repr(observed)]
    shown += [p.read_text() for p in (tmp_path / "h/state").rglob("*") if p.is_file() and p.name != "secret-0"]
    assert not [text for text in shown if SENTINEL in text]
    kept = tmp_path / "h/state/generations/1/secret-0"
    assert kept.stat().st_mode & 0o777 == 0o600
    assert kept.parent.stat().st_mode & 0o777 == 0o700
    assert kept.parent.parent.stat().st_mode & 0o777 == 0o700
    assert SENTINEL in (tmp_path / "h/s.env").read_text()


def test_destroying_what_was_never_there_leaves_nothing(tmp_path: Path) -> None:
    wanted = tree(HostRoot(host="h", root=str(tmp_path / "h"), state="state"))
    plan = diff(wanted, fleet.observe(wanted), destroy=True, data=True)
    assert not plan.applyable
    assert fleet.apply(plan, wanted, Secrets(), lambda _: None).ok
    assert not (tmp_path / "h").exists()
