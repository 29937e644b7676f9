"""How a plan, an apply and a status look: to people, without colour, and to programs."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from dataclasses import fields, replace

import pytest

from labctl.artefact import Manager, Unit
from labctl.diagnostics import Diagnostic
from labctl.hosts.events import (
    ChangeDone,
    ChangeStarted,
    Event,
    HostDone,
    HostFailed,
    HostStarted,
    LogLine,
    Progress,
    Waiting,
)
from labctl.hosts.fleet import UnitStatus
from labctl.plan.diff import diff
from labctl.plan.model import Action, Kind, Plan, Reason
from labctl.plan.observed import SeenUnit, UnitState
from labctl.plan.wire import WireError, plan_from_json, plan_to_value
from labctl.views.live import LiveProgress
from labctl.views.plan import REASONS, SYMBOLS, render_plan
from labctl.views.progress import PlainProgress, progress_view
from labctl.views.status import render_status, status_to_value
from labctl.workload import Start
from tests.plan import corpus

PROBLEM = Diagnostic(code="LAB110", summary="`web` did not start: \x1b[31mno")
EVENTS: list[Event] = [
    HostStarted(host="ash", changes=2),
    ChangeStarted(host="ash", address="ash:models/m", kind=Kind.MODEL, action=Action.CREATE),
    Progress(host="ash", path="models/m", done=1 << 20, total=10 << 20),
    Progress(host="ash", path="models/m", done=(1 << 20) + 1, total=10 << 20),
    Progress(host="ash", path="models/m", done=5 << 20, total=10 << 20),
    Progress(host="ash", path="models/m", done=10 << 20, total=10 << 20),
    ChangeDone(host="ash", address="ash:models/m", kind=Kind.MODEL, action=Action.CREATE),
    ChangeStarted(host="ash", address="ash/web", kind=Kind.UNIT, action=Action.START),
    Waiting(host="ash", unit="web", seconds=1, limit=60),
    Waiting(host="ash", unit="web", seconds=11, limit=60),
    LogLine(host="ash", unit="web", text="oh \x1b[2Jno"),
    ChangeDone(host="ash", address="ash/web", kind=Kind.UNIT, action=Action.START, problem=PROBLEM),
    HostFailed(host="ash", done=1, failed=1, skipped=0),
    HostDone(host="bee", changes=1),
]
PLAIN = """\
ash: 2 changes
  … ash:models/m: 1 MiB of 10 MiB (10 %)
  … ash:models/m: 5 MiB of 10 MiB (50 %)
  … ash:models/m: 10 MiB of 10 MiB (100 %)
  + ash:models/m fetched
  … ash/web: waiting until it is healthy, 11 s of at most 60 s
    ash/web | oh �[2Jno
  ✗ ash/web: `web` did not start: �[31mno [LAB110]
ash: failed; 1 done, 1 failed, 0 not tried
bee: done, 1 change
"""


def test_plain_progress() -> None:
    err = io.StringIO()
    with PlainProgress(err) as view:
        for event in EVENTS:
            view(event)
    assert err.getvalue() == PLAIN


def test_json_progress_is_a_line_per_event() -> None:
    out, err = io.StringIO(), io.StringIO()
    with progress_view(out, err, lambda: "now", as_json=True, live=True) as view:
        for event in EVENTS:
            view(event)
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [line["event"] for line in lines] == [type(e).__name__ for e in EVENTS]
    assert {line["at"] for line in lines} == {"now"}
    assert all(
        set(line) == {"event", "at", *(f.name for f in fields(e))} for line, e in zip(lines, EVENTS, strict=True)
    )
    assert lines[-3]["problem"]["code"] == "LAB110"
    assert err.getvalue() == ""


def test_live_progress_keeps_what_lasts() -> None:
    err = io.StringIO()
    with progress_view(io.StringIO(), err, str, as_json=False, live=True) as view:
        assert isinstance(view, LiveProgress)
        for event in EVENTS:
            view(event)
    assert "+ ash:models/m fetched" in err.getvalue()
    assert "[LAB110]" in err.getvalue()
    assert "\x1b[2J" not in err.getvalue()


def test_rich_is_for_terminals_only() -> None:
    code = "import sys, labctl.views.progress, labctl.views.plan; assert 'rich' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_reason_and_action_has_words() -> None:
    assert set(REASONS) == set(Reason)
    assert set(SYMBOLS) == set(Action)


def plan_of(name: str) -> Plan:
    case = corpus.read(name)
    return diff(case.tree, case.observed, case.secrets)


def test_colour_changes_nothing_but_colour() -> None:
    plan = plan_of("drifted")
    coloured = render_plan(plan, colour=True)
    for code in ("\x1b[33m", "\x1b[32m", "\x1b[0m"):
        coloured = coloured.replace(code, "")
    assert coloured == render_plan(plan)
    assert render_plan(plan, colour=True) != coloured


def test_long_differences_are_cut_unless_asked_for() -> None:
    plan = plan_of("drifted")
    change = plan.todo[0]
    assert change.after is not None
    long = replace(change, after=replace(change.after, text="\n".join(str(i) for i in range(40))))
    plan = replace(plan, changes=(long,))
    assert "… 31 more lines (--diff)" in render_plan(plan)
    assert "more lines" not in render_plan(plan, diff=True)


def test_control_characters_of_a_hand_edit_do_nothing() -> None:
    plan = plan_of("drifted")
    change = plan.todo[0]
    assert change.before is not None
    evil = replace(change, before=replace(change.before, text="\x1b]0;title\x07\x1b[2J\n"))
    assert "\x1b" not in render_plan(replace(plan, changes=(evil,)), diff=True)


def test_json_has_the_facts_that_are_derived() -> None:
    value = plan_to_value(plan_of("drifted"))
    assert (value["format_version"], value["complete"], value["applyable"], value["errored"]) == (1, True, True, False)
    assert value["counts"] == {"update": 1, "replace": 1}
    assert [(c["address"], c["drift"]) for c in value["changes"]] == [("ash:a.conf", True), ("ash/web", False)]
    unseen = plan_to_value(plan_of("unreachable"))
    assert (unseen["complete"], unseen["errored"]) == (False, True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nonsense", "not a plan"),
        ("[]", "it has no `format_version`"),
        ('{"format_version": 99}', "plan of format 99; this labctl reads up to 1"),
        ('{"format_version": 1, "changes": [{"host": 5}]}', "not a plan: changes.0"),
    ],
)
def test_what_is_no_plan_is_refused(text: str, message: str) -> None:
    with pytest.raises(WireError, match=message.replace("[", r"\[")):
        plan_from_json(text)


def status(name: str, state: UnitState, *, current: bool | None, start: Start = Start.ALWAYS) -> UnitStatus:
    unit = Unit(host="ash", name=name, id=name, manager=Manager.COMPOSE, project="p", fingerprint="f", start=start)
    return UnitStatus(host="ash", unit=unit, seen=SeenUnit(state=state, detail="why"), current=current)


def test_status() -> None:
    rows = [
        status("web", UnitState.RUNNING, current=True),
        status("old", UnitState.RUNNING, current=False),
        status("big", UnitState.STOPPED, current=None, start=Start.ON_DEMAND),
        status("bad", UnitState.FAILED, current=None),
    ]
    assert render_status(rows) == (
        "   unit  host  state    wanted     runs from     detail\n"
        "●  web   ash   running  running    this lab      why\n"
        "●  old   ash   running  running    an older one  why\n"
        "○  big   ash   stopped  on demand  -             why\n"
        "✗  bad   ash   failed   running    -             why\n"
        "\n"
        "2 of 4 units need attention"
    )
    assert [row["ok"] for row in status_to_value(rows)] == [True, False, True, False]
    assert render_status(rows[:1]).endswith("1 unit, all as wanted")
    assert render_status([]) == "this lab has no units"
